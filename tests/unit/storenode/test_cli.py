"""The commands as a person at a store meets them: help that fits the screen, with an example of each."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from storenode.cli import main

COLUMNS = 80


def shown(*words: str) -> str:
    done = CliRunner().invoke(main, [*words, "--help"], terminal_width=COLUMNS)
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.parametrize("name", [None, *main.commands])
def test_help_fits_the_screen_and_has_an_example(name: str | None) -> None:
    text = shown() if name is None else shown(name)
    assert max(map(len, text.splitlines())) <= COLUMNS
    assert re.search(rf"^  storenode .*{name or ''}", text, re.MULTILINE), "an example"


def test_the_list_of_commands_cuts_no_sentence() -> None:
    assert "..." not in shown().partition("Commands:")[2]


def test_an_example_names_options_that_there_are() -> None:
    for name, command in main.commands.items():
        options = {option for each in (*command.params, *main.params) for option in each.opts}
        for line in re.findall(r"^\s*(storenode .*)$", command.help or "", re.MULTILINE):
            assert set(re.findall(r"(?<= )--[a-z-]+", line)) <= options, (name, line)


def test_every_option_says_what_it_is_for() -> None:
    for name, command in main.commands.items():
        for each in (*command.params, *main.params):
            if isinstance(each, click.Option):
                assert (each.help or "").endswith((".", ")")), (name, each.name)


def test_the_package_and_its_help_load_nothing_heavy() -> None:
    code = (
        "import sys, storenode; assert not [m for m in sys.modules if m.startswith('storenode.')];"
        "import storenode.cli; heavy = {'rich', 'starlette', 'paho', 'apscheduler', 'sqlite_utils', 'structlog'};"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
