"""Contexts that a chain declares, with real processes: docs/contexts.md is run as it stands, and stores that differ."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from testbed.chain import Chain
from testbed.process import until
from tests.registry import EXAMPLE, TAX, WIDER_TAX

GUIDE = (EXAMPLE.parents[1] / "contexts.md").read_text(encoding="utf-8")
STORE = "s"


class Declaring(Chain):
    """A chain of which HQ and each store have a file of declarations of their own; the store `plain` has none."""

    def file_of(self, name: str) -> Path:
        return self.directory / f"{name}.toml"

    def hq_environ(self) -> dict[str, str]:
        return super().hq_environ() | {"HQ_CONTEXTS": str(self.file_of("hq")), "HQ_HEARTBEAT_S": "0.3"}

    def store_environ(self, name: str) -> dict[str, str]:
        declared = {} if name == "plain" else {"STORENODE_CONTEXTS": str(self.file_of(name))}
        return super().store_environ(name) | declared

    def restart_hq(self) -> None:
        if self.hq_run.running:
            self.hq_run.stop()
        self.hq_run.start()

    def restart_store(self, name: str) -> None:
        self.stores[name].stop()
        self.stores[name].start()

    def reload_store(self, name: str) -> None:
        """As `systemctl reload` does: the daemon reads its settings again, and begins anew where they differ."""
        os.kill(json.loads(self.store(name, "status", "--json").stdout)["pid"], signal.SIGHUP)

    def rows(self, name: str, sql: str) -> list[tuple[object, ...]]:
        try:
            with closing(sqlite3.connect(f"{self.replica(name).as_uri()}?mode=ro", uri=True)) as db:
                return db.execute(sql).fetchall()
        except sqlite3.OperationalError:
            return []  # no replica yet, or not this table

    def refused(self, name: str) -> str | None:
        """What HQ knows of why a store refuses taxes."""
        found = json.loads(self.hq("stores", "--json").stdout)["stores"][name]["streams"]["tax/all"]["refusal"]
        return None if found is None else str(found["detail"])

    def problems(self, name: str) -> dict[str, str]:
        found = json.loads(self.store(name, "status", "--json").stdout)["contexts"]
        return {context: facts["problem"] for context, facts in found.items()}

    def followed(self) -> dict[str, set[str]]:
        """Which streams HQ sees each store follow."""
        stores = json.loads(self.hq("stores", "--json").stdout)["stores"]
        return {name: set(store["streams"]) for name, store in stores.items()}


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Declaring]:
    for name in ("hq", STORE):
        (tmp_path / f"{name}.toml").write_text(EXAMPLE.read_text())
    found = Declaring(tmp_path)
    yield found
    found.close()


class Reader:
    """Somebody who does what the guide says, at HQ and in one store."""

    def __init__(self, chain: Declaring) -> None:
        self.chain = chain

    def follow(self, language: str, text: str) -> None:
        if language == "diff":
            (kept,) = re.findall(r"^ (.*\n)", text, re.MULTILINE)
            added = "".join(re.findall(r"^\+(.*\n)", text, re.MULTILINE))
            file = self.chain.file_of("hq")
            assert kept in file.read_text()
            file.write_text(file.read_text().replace(kept, kept + added))
        elif language == "console":
            for line, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
                self.type(shlex.split(line), expected)

    def type(self, words: list[str], expected: str) -> None:
        """Run one command until it says what the guide shows: a store follows HQ, it is not asked at once."""
        match words:
            case ["systemctl", "restart", "hq"]:
                self.chain.restart_hq()
            case ["systemctl", "restart", "storenode"]:
                self.chain.restart_store(STORE)
            case ["scp", "hq:/etc/storenode/contexts.toml", "/etc/storenode/contexts.toml"]:
                self.chain.file_of(STORE).write_text(self.chain.file_of("hq").read_text())
            case ["hq", *rest]:
                done = self.chain.hq(*rest, check=False)
                assert self._says(done.stdout + done.stderr, expected), f"{words}: {done}"
            case ["storenode", *rest]:
                self._await(words, expected, lambda: self.chain.store(STORE, *rest))
            case ["sqlite3", _, sql]:
                self._await(
                    words, expected, lambda: "\n".join("|".join(map(str, row)) for row in self.chain.rows(STORE, sql))
                )
            case _:
                raise AssertionError(f"the guide has a command that nobody runs: {words}")

    def _await(self, words: list[str], expected: str, run: object) -> None:
        assert callable(run)

        def is_said() -> bool:
            done = run()
            text = done.stdout + done.stderr if isinstance(done, CompletedProcess) else str(done) + "\n"
            return self._says(text, expected)

        until(is_said, f"{words} says {expected}")

    def _says(self, text: str, expected: str) -> bool:
        return OutputChecker().check_output(expected, text, ELLIPSIS | NORMALIZE_WHITESPACE)


def test_the_guide_does_what_it_says(chain: Declaring) -> None:
    chain.hq_run.start()
    chain.add_store(STORE)
    reader = Reader(chain)
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
    assert sum(text.count("$ ") for language, text in blocks if language == "console") > 15
    assert any(text in EXAMPLE.read_text() for language, text in blocks if language == "toml")
    for language, text in blocks:
        reader.follow(language, text)
    chain.wait_equal(STORE)
    assert chain.hq("verify").returncode == 0


def test_stores_that_lack_a_declaration_or_a_column_follow_all_the_rest(chain: Declaring) -> None:
    """One store without the file, one that gains the column later than HQ, one that gains it first."""
    for name in ("hq", "late", "early"):
        chain.file_of(name).write_text(TAX)
    chain.hq_run.start()
    for name in ("plain", "late", "early"):
        chain.add_store(name)
    feed = chain.directory / "taxes.csv"
    feed.write_text("tax_class,rate_bp\n" + "".join(f"c{n},{n}\n" for n in range(2_000)))
    chain.hq("import", "tax", str(feed))
    chain.hq("publish", "tax", "tax_class=c1", "rate_bp=9", "--scope", "zone-west")
    chain.import_prices(50, "1.00")
    count = "SELECT count(*) FROM taxes"
    for name in ("late", "early"):
        until(lambda name=name: chain.rows(name, count) == [(2_000,)], f"{name} has the taxes")  # type: ignore[misc]
    until(lambda: chain.rows("plain", "SELECT count(*) FROM prices") == [(50,)], "a store without the file sells")
    assert chain.problems("plain") == {}
    assert chain.store("plain", "verify").returncode == 0

    chain.file_of("early").write_text(WIDER_TAX)
    chain.reload_store("early")
    lacks = {"tax": "HQ's tax lacks columns label, reduced that the declaration here has"}
    until(lambda: chain.problems("early") == lacks, "the store that gained columns first says what HQ lacks")
    assert chain.rows("early", count) == [(2_000,)]
    assert chain.store("early", "verify").returncode == 0, "as HQ had them"

    chain.file_of("hq").write_text(WIDER_TAX)
    chain.hq("publish", "tax", "tax_class=c0", "rate_bp=0")  # the master has the columns; a daemon from before has not
    until(lambda: "context.left_out" in chain.hq_run.log.read_text(), "hq run leaves alone what it does not know")
    chain.import_prices(50, "2.00")
    dear = "SELECT count(*) FROM current_prices WHERE amount_minor = 200"
    for name in ("plain", "late", "early"):
        until(lambda name=name: chain.rows(name, dear) == [(50,)], f"{name} sells at the new prices")  # type: ignore[misc]
    chain.restart_hq()
    chain.import_prices(50, "3.00")
    until(lambda: chain.problems("early") == {}, "it goes on by itself once HQ has them")
    lacks = {"tax": "HQ's tax has columns label, reduced that the declaration here lacks"}
    until(lambda: chain.problems("late") == lacks, "the other says what it lacks")
    until(lambda: chain.refused("late") == lacks["tax"], "HQ knows that, too")
    dear = dear.replace("200", "300")
    for name in ("plain", "late", "early"):
        until(lambda name=name: chain.rows(name, dear) == [(50,)], f"{name} sells at the newest")  # type: ignore[misc]
    assert chain.rows("late", count) == [(2_000,)]
    assert chain.store("late", "verify").returncode == 0
    assert chain.store("late", "status").returncode == 1

    chain.file_of("late").write_text(WIDER_TAX)
    chain.restart_store("late")
    chain.hq("publish", "tax", "tax_class=c1", "label=one", "reduced=yes")
    labelled = "SELECT rate_bp, label, reduced FROM taxes WHERE tax_class IN ('c1', 'c2') ORDER BY 1"
    for name in ("late", "early"):
        until(lambda name=name: chain.rows(name, labelled) == [(1, "one", 1), (2, None, 0)], name)  # type: ignore[misc]
        assert chain.problems(name) == {}
        until(lambda name=name: name == "plain" or chain.refused(name) is None, "HQ knows that all agree")  # type: ignore[misc]
    until(lambda: chain.followed().keys() == {"plain", "late", "early"}, "each store has told HQ")
    assert chain.followed()["plain"] == {"price/all", "product/all"}
    assert chain.followed()["late"] == {"price/all", "product/all", "tax/all"}
    assert chain.hq("verify").returncode == 0
    master = chain.master()
    for name in ("late", "early"):
        scanned = json.loads(chain.store(name, "verify", "--json").stdout)["streams"]
        assert {n: s["digest"] for n, s in scanned.items()} == {n: master[n]["digest"] for n in scanned}
