"""The tutorials and the page of all commands, typed into a shell as they stand, with real processes.

A page shows `$ command` and what it prints. Times, digests and sizes differ from one run to the next, so both sides are
read with these replaced by their kind; every other word and number must be printed as the page shows it. `...` in a
line of a page stands for anything in that line, `...` alone for any number of lines.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from testbed.broker import free_port

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [DOCS / "operating" / "commands.md", *sorted(DOCS.glob("tutorial-*.md"))]  # the longest first
CHECKOUT = ("storelink", "hq", "storenode", "docs", "tests", "bench", "testbed", "pyproject.toml", "README.md")
END_OF_ANSWER = "@@end@@"
WAIT_S = 60.0
STEADY_S = 20.0
"""A command that answers the same for so long will not say anything else. A store tries the broker again within 5 s."""

ASKS = re.compile(
    r"storenode (status|price|outbox|availability|verify|doctor)\b"
    r"|hq (status|stores|inbox|overrides|verify|doctor)\b|curl |timeout "
)
"""What may be typed again until it says what the page shows: a store follows HQ, a daemon needs a moment to start."""

KINDS = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z", "TIME"),
    (r"\d{8}T\d{6}(?:\.\d+)?Z", "TIME"),
    (r"\b[0-9a-f]{12}-[0-9a-f]{8}\b", "EPOCH"),
    (r"\b[0-9a-f]{12,64}\b", "DIGEST"),
    (r"\bpid \d+", "pid N"),
    (r"[\d,.]+ (?:kB|MB|GB|B|bytes)\b", "SIZE"),
    (r"[+-]?[\d,.]+ (?:ms|s|seconds?|minutes?)\b", "DURATION"),
    (r"[\d.]+%", "SHARE"),
    (r"(?<!\w)[\w/.-]*/practice\b", "practice"),
)


def read_by_kind(text: str) -> str:
    for pattern, kind in KINDS:
        text = re.sub(pattern, kind, text)
    return text


def says(shown: str, answer: str) -> bool:
    """Whether a command printed what the page shows."""
    wanted = ""
    for line in read_by_kind(shown).splitlines():
        words = re.sub(r"\s+", " ", line.strip())
        wanted += "(?:.*\n)*" if words == "..." else ".*".join(map(re.escape, words.split("..."))) + "\n"
    lines = [re.sub(r"\s+", " ", line.strip()) for line in read_by_kind(answer).splitlines()]
    return re.fullmatch(wanted, "".join(f"{line}\n" for line in lines)) is not None


def typed(page: Path) -> Iterator[tuple[str, str]]:
    """Each `$ command` of the page's console blocks, with its further lines (`> `), and what the page shows below."""
    for block in re.findall(r"^```console\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            ends = next((n for n, line in enumerate(lines[1:], start=1) if not line.startswith("> ")), len(lines))
            command = "\n".join([lines[0], *(line[2:] for line in lines[1:ends])])
            yield command, "".join(f"{line}\n" for line in lines[ends:])


class Shell:
    """One shell for a whole page, since a page sets variables; in a copy of the checkout that ends with it."""

    def __init__(self, directory: Path) -> None:
        bin_first = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # Compiling our modules anew would take half of the time of each command.
        others = ("HQ_", "STORENODE_", "PYTEST_", "PYTHONDONTWRITEBYTECODE")
        environ = {n: v for n, v in os.environ.items() if not n.startswith(others)}
        self._shell = subprocess.Popen(
            ["sh"],
            cwd=directory,
            env=environ | {"PATH": bin_first, "PRACTICE_PORT": str(free_port()), "COLUMNS": "120"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def type(self, command: str) -> str:
        assert self._shell.stdin is not None and self._shell.stdout is not None
        self._shell.stdin.write(f"{command}\necho {END_OF_ANSWER}\n")
        self._shell.stdin.flush()
        answer = ""
        for line in self._shell.stdout:
            if line.rstrip("\n").endswith(END_OF_ANSWER):
                return answer + line.rstrip("\n").removesuffix(END_OF_ANSWER)
            answer += line
        raise AssertionError(f"the shell ended at: {command}\n{answer}")

    def close(self) -> None:
        self.type("command -v practice >/dev/null && practice end")
        assert self._shell.stdin is not None and self._shell.stdout is not None
        self._shell.stdin.close()
        self._shell.wait(20)
        self._shell.stdout.close()


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A copy in a directory with a short name: the path of a unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="tutorial-") as name:
        for part in CHECKOUT:
            if (source := ROOT / part).is_dir():
                shutil.copytree(source, Path(name) / part)
            elif source.exists():
                shutil.copy(source, name)
        yield Path(name)


def follow(page: Path, shell: Shell) -> None:
    for command, shown in typed(page):
        since_s = changed_s = time.monotonic()
        before = ""
        while not says(shown, answer := shell.type(command)):
            now_s = time.monotonic()
            if read_by_kind(answer) != before:
                before, changed_s = read_by_kind(answer), now_s
            again = ASKS.match(command) and now_s < min(since_s + WAIT_S, changed_s + STEADY_S)
            assert again, f"{page.name}: $ {command}\nthe page shows:\n{shown}\nit printed:\n{answer}"
            time.sleep(0.2)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_a_page_does_what_it_shows(page: Path, checkout: Path) -> None:
    assert len(list(typed(page))) >= 5
    shell = Shell(checkout)
    try:
        follow(page, shell)
        if (checkout / "practice").exists():
            tables_are_described(checkout / "practice")
    finally:
        shell.close()


def tables_are_described(practice: Path) -> None:
    """Every table of every file that the chain made stands in docs/architecture.md, in the section of that file."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    for path in (*practice.glob("hq/hq*.db"), practice / "store" / "replica.db", practice / "store" / "outbox.db"):
        section = text.partition(f"\n#### `{path.name}`")[2].partition("\n####")[0]
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")]
        missing = {n for n in names if not n.startswith("sqlite_") and f"`{n}`" not in section}
        shadow = {n for n in missing if re.fullmatch(r"\w+_(?:data|idx|docsize|config|content)", n)}
        assert missing - shadow == set(), f"docs/architecture.md, {path.name}"
