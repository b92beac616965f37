"""The commands as a person at a store meets them: help that fits the screen, with an example of each."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream
from storenode import Outbox
from storenode.cli import main
from storenode.core.availability import DOWN
from storenode.jobs.availability import AvailabilityLog
from storenode.replica.provenance import LIVE, Commit
from storenode.replica.writer import Replica

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


def test_what_the_commands_print_fits_the_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    now_ms, epoch = time.time_ns() // 1_000_000, "019b76da1000-5f3c9a01"
    replica = Replica.open(tmp_path / "replica.db", ("all", "price/zone-west"), BUILT_IN)
    for name in ("price/all", "price/zone-west"):
        replica.apply(
            Stream.parse(name, BUILT_IN),
            epoch=epoch,
            position=123_456_789,
            digest="f" * 32,
            head_seq=123_456_789,
            batches=[([(7, "4006381333931", "promotion", "EUR", "[[1700000000,4102444800,123456]]")], [])],
            replace=False,
            wall_ms=now_ms,
            commits=[Commit(LIVE, 1, 123_456_789, epoch, "f" * 32, now_ms, now_ms)],
        )
    with Outbox(tmp_path / "outbox.db") as outbox:
        outbox.append("till.opened", {"till": 3})
    log = AvailabilityLog(tmp_path / "outbox.db")
    for minutes, state in ((90_000, "live"), (80_000, "offline"), (1, DOWN)):
        log.step({"price/all": state, "price/zone-west": state}, 0, now_ms - minutes * 60_000)
    log.end(now_ms)
    for words in (
        "price 4006381333931",
        "explain 4006381333931",
        "verify",
        "jobs",
        "emit stock.count.of.the.night 123456789012345678",
        "outbox",
        "override 4006381333931 1.20 --until 2099-01-01 --reason ripe",
        "override",
        "availability --intervals --days 100",
        "rebuild",
    ):
        done = CliRunner().invoke(main, ["--scopes", "all,price/zone-west", *words.split()])
        assert done.exception is None or isinstance(done.exception, SystemExit), words
        assert done.stdout, words
        assert max(map(len, done.output.splitlines())) <= COLUMNS, done.output
    replica.connection.close()
