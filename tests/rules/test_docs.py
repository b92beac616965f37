"""The documents name what there is: log events, settings, commands, paths, terms; and every link leads somewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import hq.cli
import hq.config
import storenode.cli
import storenode.config
from storelink.contract.contexts import BUILT_IN
from storenode.core.job_times import rhythms
from storenode.core.states import STATES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROTOCOL = ROOT / "storelink" / "contract" / "README.md"
GUIDES = sorted([ROOT / "README.md", *DOCS.glob("*.md"), *DOCS.glob("operating/*.md"), PROTOCOL])
"""What people read who do not know the code. Decisions tell what was, with the words of their time."""

DOCUMENTS = [*GUIDES, *DOCS.glob("decisions/*.md"), ROOT / "CHANGELOG.md"]
PROGRAMS = {"hq": hq.cli.main, "storenode": storenode.cli.main}
LEVELS = "debug|info|warning|error|exception"

METAPHORS = (
    r"told|telling|tells of|(?:set|sets|setting) aside|chores?|ledger|visits?|visiting|reigns?|deaf|bells?|rung"
    r"|outlets?|adoptions?|adopts|way back|departures?|departing|mirror(?:ed|s)?|presumptions?|whole answers?|way_back"
)
"""What the domain's things were once called: each had to be explained. As words of a sentence, code left out."""


def read(*parts: str) -> str:
    return DOCS.joinpath(*parts).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """What stands under a heading, up to the next of its rank."""
    rank = "#" * (len(title) - len(title.lstrip("#")))
    return text.partition(f"{title}\n")[2].partition(f"\n{rank} ")[0]


def prose(text: str) -> str:
    """A document without its code: fenced blocks, code spans, targets of links."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)


def logged(path: Path) -> Iterator[str]:
    """The event names of all calls `log.<level>("noun.past_participle", ...)`, however the level is chosen."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and re.search(rf"\blog\.(?:{LEVELS})\b", ast.unparse(node.func)):
            name = node.args[0]
            for part in (name.body, name.orelse) if isinstance(name, ast.IfExp) else (name,):
                assert isinstance(part, ast.Constant), f"{path.name} line {node.lineno}: an event's name is constant"
                yield str(part.value)


def test_the_guide_lists_every_log_event_and_no_other() -> None:
    found = {
        name
        for package in ("storelink", "hq", "storenode")
        for p in (ROOT / package).rglob("*.py")
        for name in logged(p)
    }
    table = re.sub(r"\]\([^)]*\)", "", section(read("operating", "reference.md"), "## Log events"))
    assert set(re.findall(r"`([a-z_]+\.[a-z_]+)`", table)) == found
    assert all(re.fullmatch(r"[a-z_]+\.[a-z_]+", name) for name in found), "noun.past_participle"


def test_the_guide_lists_every_setting() -> None:
    table = section(read("operating", "configure.md"), "## Settings")
    for field in (*fields(hq.config.Settings), *fields(storenode.config.Settings)):
        assert f"`{field.name}`" in table, field.name


def test_every_command_says_what_it_does() -> None:
    for program, group in PROGRAMS.items():
        for name, command in group.commands.items():
            assert command.help, f"{program} {name}"
            assert command.get_short_help_str(200).endswith("."), f"{program} {name}"


def test_every_command_stands_in_a_guide_with_its_output() -> None:
    """`tests/integration/test_tutorials.py` types that page; so what stands below a command is what it prints."""
    shown = "".join(re.findall(r"^```console\n(.*?)^```$", read("operating", "commands.md"), re.DOTALL | re.MULTILINE))
    for program, name in ((program, name) for program, group in PROGRAMS.items() for name in group.commands):
        typed = rf"^\$ (?:timeout \d+ )?{program} {name}\b.*\n(?!\$ ).+"
        assert re.search(typed, shown, re.MULTILINE), (
            f"docs/operating/commands.md lacks {program} {name} and its output"
        )


def test_the_readme_shows_the_demo_before_line_25_and_stays_short() -> None:
    lines = README.splitlines()
    assert len(lines) < 150
    assert next(number for number, line in enumerate(lines, start=1) if "make demo" in line) < 25


def anchors(text: str) -> set[str]:
    """What GitHub makes of a document's headings."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def leads_somewhere(path: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = path.parent / name if name else path
    return target.exists() and (not anchor or anchor in anchors(target.read_text(encoding="utf-8")))


def test_links_between_documents_lead_somewhere() -> None:
    links = [(p, link) for p in DOCUMENTS for link in re.findall(r"\]\(([^)\s]+)\)", p.read_text(encoding="utf-8"))]
    ours = [(path, link) for path, link in links if not link.startswith(("http://", "https://"))]
    assert len(ours) > 100
    assert [f"{path.name}: {link}" for path, link in ours if not leads_somewhere(path, link)] == []


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop().resolve()
        if path not in reached and path.suffix == ".md" and path.exists():
            reached.add(path)
            names = re.findall(r"\]\(([^)\s#:]+)", path.read_text(encoding="utf-8"))
            waiting += [path.parent / name for name in names]
    assert {path for path in DOCS.rglob("*.md") if path.resolve() not in reached} == set()


def test_every_path_that_the_architecture_names_exists() -> None:
    for name in ("architecture.md", "contributing.md"):
        named = set(re.findall(r"`((?:storelink|hq|storenode|bench|tests|docs|deploy|testbed)/[\w./*-]*)`", read(name)))
        assert len(named) > 15, name
        for path in named:
            assert list(ROOT.glob(path.rstrip("/"))), f"docs/{name}: {path}"


def test_the_architecture_names_a_writer_for_each_table() -> None:
    """That it is the only one: `test_tables.py`. That no table is missing: `tests/integration/test_tutorials.py`."""
    rows = re.findall(
        r"^\| (`[^|]+) \| [^|]+ \| (`[^|]+) \|$", section(read("architecture.md"), "## Files and tables"), re.MULTILINE
    )
    assert len(rows) > 20
    for names, modules in rows:
        if re.search("CONTEXT|declared context|freshness", names):
            continue  # the code writes rows under the names that contexts give, and nobody writes a view
        text = "".join((ROOT / module).read_text(encoding="utf-8") for module in re.findall(r"`([^`]+)`", modules))
        for name in re.findall(r"`([^`]+)`", names):
            assert re.search(rf"\b{name}\b", text), f"{name} is not in {modules}"


def test_the_architecture_answers_twenty_questions_with_a_module_each() -> None:
    table = section(read("architecture.md"), "## Where is it decided?")
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| ") and "?" in line]
    assert len(rows) >= 20
    for _, question, module, *_ in rows:
        assert re.search(r"`[\w/]+\.py`", module), question


def terms() -> dict[str, str]:
    """Each term of the glossary, in lower case, with what it says of it."""
    found = re.findall(r"^\*\*(.+?)\*\*[^\n]*\n(.+?)(?=\n\n|\Z)", read("glossary.md"), re.MULTILINE | re.DOTALL)
    return {term.lower(): meaning for names, meaning in found for term in names.split("**, **")}


def test_the_glossary_says_little_of_each_term_and_is_sorted() -> None:
    found = terms()
    assert len(found) > 60
    for term, meaning in found.items():
        assert len(meaning.splitlines()) <= 2, term
    names = re.findall(r"^\*\*(.+?)\*\*", read("glossary.md"), re.MULTILINE)
    assert names == sorted(names, key=str.lower)


def test_the_glossary_has_every_term_that_a_guide_defines() -> None:
    """A guide sets a term in emphasis where it defines it: *head*, *guard*."""
    for path in GUIDES:
        for emphasised in re.findall(
            r"(?<![*\w])\*([A-Za-z][\w -]+?)\*(?![*\w])", prose(path.read_text(encoding="utf-8"))
        ):
            term = emphasised.lower()
            assert term in terms() or term.removesuffix("s") in terms(), (
                f"{path.name}: *{emphasised}* is in no glossary"
            )


def test_the_glossary_has_what_the_code_shows_to_people() -> None:
    """States, jobs, contexts and the kinds of price are words that a person meets on a screen."""
    kinds = {choice for context in BUILT_IN.values() for column in context.keys for choice in column.choices}
    jobs = set(rhythms("store-042", look_s=60, backup_hour=3))
    for word in {*STATES, *jobs, *BUILT_IN, *kinds}:
        assert f"`{word}`" in read("glossary.md"), word


def test_guides_use_the_words_of_the_glossary() -> None:
    for path in GUIDES:
        for line in prose(path.read_text(encoding="utf-8")).splitlines():
            found = re.findall(rf"\b(?:{METAPHORS})\b", line, re.IGNORECASE)
            assert found == [], f"{path.name}: {line.strip()}; see docs/glossary.md"


def test_no_document_or_lock_names_a_machine() -> None:
    """A path of the machine that made the locks, or a registry's host, would bind the project to them."""
    for path in [*ROOT.glob("requirements/*.txt"), ROOT / "README.md", ROOT / "Makefile", ROOT / "pyproject.toml"]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"file:/|^--|https?://(?!github)|/work/|/root/|/home/| @ ", text, re.MULTILINE), path.name
