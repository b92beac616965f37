"""What the torture of processes, brokers and lines shares: a site under load, saboteurs, and the printed figures."""

from __future__ import annotations

import json
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import pytest

from hq.core.changes import Change
from hq.master.store import Master
from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream
from storenode.outbox.store import Outbox
from testbed.chain import Chain
from testbed.cut_line import Line
from testbed.process import BIN, Process, until
from tests.faults.scale import SCALE, SEED
from tests.oracle.prices import Prices, judge_inbox, judge_rows, read_replica
from tests.oracle.verdicts import Verdict

ROOT = Path(__file__).resolve().parents[2]
PRICE = Stream.parse("price/all", BUILT_IN)
SETS_PER_S = 20
CAUGHT_UP_S = 10.0
"""How long replicas, and HQ's inbox, may take to be level once faults have ended."""

HEALED_S = 60.0
"""How long the broker's history may take to be complete again."""


def figures(capfd: pytest.CaptureFixture[str], text: str) -> None:
    """Print one line of what a harness did, past pytest's capture: documents quote it."""
    with capfd.disabled():
        print(f"\n{text} (seed {SEED}, scale {SCALE:g})", file=sys.stderr, flush=True)


def saboteur(name: str, program: str, *arguments: str) -> list[str]:
    """The command line of one of our programs, broken on purpose: see `tests/faults/sabotage.py`."""
    return [sys.executable, "-m", "tests.faults.sabotage", name, program, *arguments]


def prices(amounts: Mapping[str, int | None]) -> list[Change]:
    """The changes that give each sku one open step; None deletes."""
    return [
        Change((sku, "regular"), None if amount is None else ("EUR", f"[[1764000000,null,{amount}]]"))
        for sku, amount in amounts.items()
    ]


class Site(Chain):
    """A chain whose parts may be sabotaged, with the model of what it must hold."""

    def __init__(self, directory: Path, *, hq_sabotage: str | None = None) -> None:
        super().__init__(directory)
        self.model = Prices()
        self.accepted: dict[str, list[str]] = {}
        self.hq_run.environ["PYTHONPATH"] = str(ROOT)
        self.extra["PYTHONPATH"] = str(ROOT)
        if hq_sabotage is not None:
            self.hq_run = self.daemon(saboteur(hq_sabotage, "hq", "run"), self.hq_environ(), "hq")

    def daemon(self, arguments: Sequence[str], environ: Mapping[str, str], name: str) -> Process:
        return Process(list(arguments), dict(environ) | {"PYTHONPATH": str(ROOT)}, self.directory / f"{name}.log")

    def open_store(self, name: str, *, sabotage: str | None = None, wrap: Sequence[str] = ()) -> Process:
        """Start a store; `wrap` goes before its command line, `sabotage` breaks it."""
        self.replica(name).parent.mkdir(exist_ok=True)
        if name not in self.lines:
            self.lines[name] = Line(self.port)
        command = [str(BIN / "storenode"), "run"] if sabotage is None else saboteur(sabotage, "storenode", "run")
        self.stores[name] = self.daemon([*wrap, *command], self.store_environ(name), name)
        self.stores[name].start()
        return self.stores[name]

    def desk(self, amounts: Mapping[str, int | None]) -> None:
        """Commit one change set, from another desk than the load's."""
        with Master(self.directory / "hq.db", BUILT_IN) as master:
            done = master.commit(PRICE, prices(amounts), time.time_ns() // 1_000_000)
        assert done.events == self.model.ask_for(amounts)

    def outbox(self, name: str) -> Path:
        return self.replica(name).with_name("outbox.db")

    def verdict(self, name: str) -> Verdict:
        return judge_rows(self.model, read_replica(self.replica(name)))

    def inbox(self, name: str) -> list[dict[str, Any]]:
        done = self.hq("inbox", "--ndjson", "--store", name)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def inbox_verdict(self, name: str) -> Verdict:
        return judge_inbox(self.accepted.get(name, []), self.inbox(name))

    def wait_clean(self, name: str, timeout_s: float = CAUGHT_UP_S) -> float:
        """Wait until the replica is the model; returns the seconds it took."""
        began_s = time.monotonic()
        until(lambda: self.verdict(name).ok, f"{name} holds what HQ committed", timeout_s)
        return time.monotonic() - began_s

    def wait_sent(self, name: str, timeout_s: float = CAUGHT_UP_S) -> None:
        """Wait until the outbox is empty: HQ has said that it has everything."""
        until(lambda: pending(self.outbox(name)) == 0, f"{name} has HQ's word for every entry", timeout_s)


def pending(outbox: Path) -> int:
    """The entries that wait in an outbox's file."""
    with closing(sqlite3.connect(f"file:{outbox}?mode=ro", uri=True)) as db:
        found: int = db.execute("SELECT count(*) FROM entries").fetchone()[0]
    return found


def connected(replica: Path) -> bool:
    """Whether a store's daemon wrote that its line is up."""
    try:
        with closing(sqlite3.connect(f"file:{replica}?mode=ro", uri=True)) as db:
            row = db.execute("SELECT connected FROM daemon WHERE id = 1").fetchone()
    except sqlite3.OperationalError:
        return False
    return bool(row and row[0])


class _Loop(threading.Thread):
    """A thread that repeats `turn` at a pace until it leaves the context; a failure of it fails the test."""

    def __init__(self, per_s: float) -> None:
        super().__init__(daemon=True)
        self._pause_s = 1 / per_s
        self._ending = threading.Event()
        self._going = threading.Event()
        self._going.set()
        self._idle = threading.Event()
        self.error: BaseException | None = None

    def turn(self, number: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """What the thread opened, let go of by itself."""

    def run(self) -> None:
        number = 0
        try:
            while not self._ending.is_set():
                if not self._going.is_set():
                    self._idle.set()
                    self._going.wait(0.05)
                    continue
                number += 1
                self.turn(number)
                self._ending.wait(self._pause_s)
        except BaseException as error:
            self.error = error
        finally:
            self._idle.set()
            self.close()

    def hold(self) -> None:
        """Pause; returns when the turn under way is over."""
        self._idle.clear()
        self._going.clear()
        assert self._idle.wait(60.0)
        assert self.error is None, self.error

    def go_on(self) -> None:
        self._going.set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._going.set()
        self._ending.set()
        self.join(60.0)
        assert kind is not None or self.error is None, self.error


class Load(_Loop):
    """The desk: commits price changes, `per_s` a second, in sets; some of them delete."""

    def __init__(self, site: Site, per_s: float, skus: int = 1_000, seed: int = SEED) -> None:
        super().__init__(SETS_PER_S)
        self._each = max(1, round(per_s / SETS_PER_S))
        self._site, self._skus, self._rng = site, skus, random.Random(seed)
        self._master: Master | None = None
        self.committed = 0

    def turn(self, number: int) -> None:
        if self._master is None:
            self._master = Master(self._site.directory / "hq.db", BUILT_IN)
        some = self._rng.sample(range(self._skus), self._each)
        amounts: dict[str, int | None] = {f"load-{n}": number * 1_000 + n for n in some}
        if number % 10 == 0:
            amounts[f"load-{some[0]}"] = None
        done = self._master.commit(PRICE, prices(amounts), time.time_ns() // 1_000_000)
        assert done.events == self._site.model.ask_for(amounts), "HQ counts as the model does"
        self.committed += done.events

    def close(self) -> None:
        if self._master is not None:
            self._master.close()


class Traffic(_Loop):
    """A till's software: appends to the outbox, and remembers what was accepted."""

    def __init__(self, site: Site, name: str, per_s: float = 50.0, seed: int = SEED) -> None:
        super().__init__(per_s)
        self._site, self._name, self._rng = site, name, random.Random(seed)
        self._outbox: Outbox | None = None
        self._accepted = site.accepted.setdefault(name, [])

    def turn(self, number: int) -> None:
        if self._outbox is None:
            self._outbox = Outbox(self._site.outbox(self._name))
        entry = f"{self._name}-{number}" + "x" * self._rng.choice((0, 0, 0, 0, 0, 0, 5_000))
        self._outbox.append("torture", entry)
        self._accepted.append(entry)

    def close(self) -> None:
        if self._outbox is not None:
            self._outbox.close()
