"""The documents name what there is: log events, settings, commands; and the README shows the demo early."""

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

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
LEVELS = "debug|info|warning|error|exception"


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
    table = GUIDE.partition("## Log events")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", table.replace("`storenode status --json`", "")))
    assert listed == found
    assert all(re.fullmatch(r"[a-z_]+\.[a-z_]+", name) for name in found), "noun.past_participle"


def test_the_guide_lists_every_setting() -> None:
    table = GUIDE.partition("## Settings")[2].partition("\n## ")[0]
    for field in (*fields(hq.config.Settings), *fields(storenode.config.Settings)):
        assert f"`{field.name}`" in table, field.name


def test_every_command_says_what_it_does() -> None:
    for program, group in (("hq", hq.cli.main), ("storenode", storenode.cli.main)):
        for name, command in group.commands.items():
            assert command.help, f"{program} {name}"
            assert command.get_short_help_str(200).endswith("."), f"{program} {name}"


def test_the_readme_shows_the_demo_before_line_25_and_stays_short() -> None:
    lines = README.splitlines()
    assert len(lines) < 150
    assert next(number for number, line in enumerate(lines, start=1) if "make demo" in line) < 25


def test_links_between_documents_lead_somewhere() -> None:
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("storelink/**/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.relative_to(ROOT)}: {target}"


def test_no_document_or_lock_names_a_machine() -> None:
    """A path of the machine that made the locks, or a registry's host, would bind the project to them."""
    for path in [*ROOT.glob("requirements/*.txt"), ROOT / "README.md", ROOT / "Makefile", ROOT / "pyproject.toml"]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"file:/|^--|https?://(?!github)|/work/|/root/|/home/| @ ", text, re.MULTILINE), path.name
