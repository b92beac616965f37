"""Somebody sets the clock of a store's machine: an hour back, an hour ahead, a year ahead, 1970."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from testbed.chain import Chain
from testbed.cut_line import Line
from testbed.process import Process, environment, until
from tests.faults.chaos import ROOT

ALIVE_WITHIN_S = 60.0
HOUR_S, YEAR_S = 3_600, 365 * 86_400
CHECKPOINT_PERIOD_S = 300
"""The schedule's shortest job moves the write-ahead log into the replica's file at every whole five minutes."""

BEFORE_DUE_S = 8
SHIFTED_CLOCK = ROOT / "testbed" / "shifted_clock.py"
GROWTH_BYTES_MAX = 20 * 1024 * 1024
"""APScheduler alone, a year ahead, went through a year of instants and took 338 MiB."""


class Store:
    """A real daemon on a clock that this test sets."""

    def __init__(self, chain: Chain, name: str, set_by_s: float = 0, *, sabotage: str | None = None) -> None:
        self.name, self._chain = name, chain
        self._clock = chain.directory / f"{name}.clock"
        self._set_by(set_by_s)
        self._done_at_ms: int | None = None
        self._db = chain.replica(name)
        self._db.parent.mkdir()
        chain.lines[name] = Line(chain.port)
        environ = environment(
            {
                "STORENODE_DB": str(self._db),
                "STORENODE_STORE_ID": name,
                "STORENODE_BROKER": chain.lines[name].url,
                "PYTHONPATH": str(ROOT),
            }
        )
        program = ["storenode.cli"] if sabotage is None else ["tests.faults.sabotage", sabotage, "storenode"]
        command = [sys.executable, str(SHIFTED_CLOCK), str(self._clock), *program, "run"]
        self.process = chain.stores[name] = Process(command, environ, chain.directory / f"{name}.log")
        self.process.start()

    def set_clock(self, target_s: float) -> None:
        """Set its clock to the last moments before the checkpoint that is next after `target_s`."""
        self._done_at_ms = self._last_ms("checkpoint")
        due_s = (target_s // CHECKPOINT_PERIOD_S + 1) * CHECKPOINT_PERIOD_S
        self._set_by(due_s - BEFORE_DUE_S - time.time())

    def _set_by(self, seconds: float) -> None:
        self.set_by_s = seconds
        file = os.open(self._clock, os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(file, struct.pack("=q", int(seconds * 1e9)), 0)
        os.close(file)

    def wait_level(self) -> None:
        """It has what HQ has, and its schedule runs: what is due at a start is done."""
        until(lambda: self._price() == self._at_hq(), self.name)
        until(lambda: self._last_ms("verify") is not None, f"{self.name}: a job at the start")

    def wait_alive(self, what: str, within_s: float = ALIVE_WITHIN_S) -> None:
        """Heartbeat, both ways of the line, and the schedule. Raises AssertionError."""
        deadline_s = time.monotonic() + within_s
        told = json.dumps(f"{self.name}, {what}")
        self._chain.store(self.name, "emit", "clock.set", told, check=True)
        for condition, sign in (
            (lambda: abs(self._seen_s() - time.time() - self.set_by_s) < 10, "heartbeat on the new clock"),
            (lambda: self._status()["outbox"]["pending"] == 0, "HQ acknowledged"),
            (lambda: self._price() == self._at_hq(), "a live change"),
            (lambda: self._last_ms("checkpoint") != self._done_at_ms, "a job"),
        ):
            until(condition, f"{self.name}: {what}: {sign}", deadline_s - time.monotonic())
        assert self.process.running

    def resident_bytes(self) -> int:
        pid = self._asked("SELECT pid FROM daemon")
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) * 1024

    def troubles(self) -> list[dict[str, Any]]:
        """What it logged as an error, or in no form at all (a thread's death)."""
        lines = self.process.log.read_text().splitlines()
        records = [json.loads(line) if line.startswith("{") else {"level": "error", "line": line} for line in lines]
        return [record for record in records if record["level"] in ("error", "critical")]

    def _status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._chain.store(self.name, "status", "--json").stdout)
        return found

    def _seen_s(self) -> float:
        return float(self._asked("SELECT seen_at_ms FROM daemon")) / 1000

    def _price(self) -> Any:
        return self._asked("SELECT position FROM streams WHERE stream = 'price/all'")

    def _at_hq(self) -> int:
        return int(self._chain.master()["price/all"]["head_seq"])

    def _last_ms(self, job: str) -> Any:
        return self._asked(f"SELECT last_at_ms FROM jobs WHERE name = '{job}'", self._db.with_name("outbox.db"))

    def _asked(self, query: str, path: Path | None = None) -> Any:
        try:
            with closing(sqlite3.connect(f"{(path or self._db).as_uri()}?mode=ro", uri=True)) as db:
                row = db.execute(query).fetchone()
        except sqlite3.OperationalError:  # it is being made
            return None
        return None if row is None else row[0]


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    found = Chain(tmp_path)
    yield found
    found.close()


def test_jobs_outbox_and_heartbeat_outlive_every_setting_of_the_clock(chain: Chain) -> None:
    """
    APScheduler sleeps towards an instant of the wall clock: set an hour back, it slept for an hour more, also after
    the clock was right again. All stores go through their jump and back, at the same time to spare it.
    """
    chain.hq_run.start()
    chain.import_prices(10, "1.00")
    now_s = time.time()
    jumps = {"hour-back": now_s - HOUR_S, "hour-ahead": now_s + HOUR_S, "year-ahead": now_s + YEAR_S, "in-1970": 60.0}
    stores = {name: Store(chain, name) for name in jumps}
    # A machine without a clock of its own: it boots in 1970 and is set right once there is a network.
    stores["boots-in-1970"] = Store(chain, "boots-in-1970", 60.0 - now_s)
    for store in stores.values():
        store.wait_level()
    before = {name: store.resident_bytes() for name, store in stores.items()}
    for name, target_s in jumps.items():
        stores[name].set_clock(target_s)
    stores["boots-in-1970"].set_clock(now_s)
    chain.import_prices(10, "2.00")
    for store in stores.values():
        store.wait_alive("after its clock was set")
    for name in jumps:
        stores[name].set_clock(time.time())
    chain.import_prices(10, "3.00")
    for name in jumps:
        stores[name].wait_alive("after its clock was set right")
    grown = {name: store.resident_bytes() - before[name] for name, store in stores.items()}
    assert {name: size for name, size in grown.items() if size > GROWTH_BYTES_MAX} == {}
    assert {name: store.troubles() for name, store in stores.items() if store.troubles()} == {}


def test_control_a_store_that_does_not_watch_the_clock_is_caught(chain: Chain) -> None:
    chain.hq_run.start()
    chain.import_prices(10, "1.00")
    store = Store(chain, "hour-back", sabotage="clock_unwatched")
    store.wait_level()
    store.set_clock(time.time() - HOUR_S)
    chain.import_prices(10, "2.00")
    with pytest.raises(AssertionError, match="a job"):
        store.wait_alive("after its clock was set", 2 * BEFORE_DUE_S)
