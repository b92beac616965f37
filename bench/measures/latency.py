"""How late a change is seen, and how many a second a store keeps up with: real processes, a reader of the store's file.

The committing process, `hq run` and `storenode run` are apart; monotonic time is one for all processes of a machine.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.measures.site import Site, Store
from bench.report import Figure, middle, told
from hq.master.connection import connect
from hq.master.schema import EVENT_COLUMNS, statements
from storelink.contract.contexts import BUILT_IN
from storelink.contract.messages import Message
from storelink.contract.streams import Stream
from testbed.feeds import Grocery
from testbed.mqtt_client import Client, Loop
from testbed.mqtt_packets import Publish
from testbed.process import StepFailed, environment, until

PRICES = Stream.parse("price/all", BUILT_IN)
STEADY_PER_S = 50
SET = 100
LOOK_S = 0.0001
ARRIVES_WITHIN_S = 20.0
GROWTH_SETS_MAX = 5
"""Change sets by which the lag's median in the second half may be over the first half's: noise, not growth."""

RAW_ROWS = 30_000

RATES = (10_000, 12_500, 15_000, 20_000, 25_000, 30_000, 40_000)
ROUND_TRIPS = 300
NS_PER_MS = 1_000_000

Commits = list[tuple[int, int]]
"""HQ's newest seq after each commit, and the monotonic nanoseconds at which it was durable."""


def measure_steady(grocery: Grocery, seconds: float) -> list[Figure]:
    """50 changes a second: from the durable commit to the row being visible in the store's SQLite."""
    with _live(grocery) as (site, store):
        round_trip = _round_trips(site.broker.port)
        with _Committer(site, STEADY_PER_S, seconds, 1) as committer:
            seen = _watch(store, committer)
            commits = committer.commits()
    late = sorted((seen[seq] - at_ns) / NS_PER_MS for seq, at_ns in commits)
    name = f"{STEADY_PER_S} changes/s for {seconds:g} s, commit to visible:"
    found = []
    for share, most in ((0.50, 3.0), (0.99, 10.0)):
        label = f"p{share * 100:.0f}"
        limit = f"empty message {_share(round_trip, share):.2f} ms"
        value = _share(late, share)
        found.append(Figure(f"{name} {label}", value, "ms", limit, value, most, False))
    return [*found, told(f"{name} latest", late[-1], "ms")]


def measure_sustained(grocery: Grocery, seconds: float, rates: tuple[int, ...] = RATES) -> list[Figure]:
    """The highest rate of RATES, in change sets of 100, that the committer holds without the store falling behind."""
    held, lag, ended = 0.0, 0.0, "nothing: the rates ended"
    with _live(grocery) as (site, store):
        limit = _raw_rate(site)
        for rate in rates:
            with _Committer(site, rate / SET, seconds, SET) as committer:
                lags = _lags(site, store, committer)
                commits = committer.commits()
            took_s = (commits[-1][1] - commits[0][1]) / 1e9
            reached = SET * (len(commits) - 1) / took_s
            early, later = (middle(part) for part in (lags[: len(lags) // 2], lags[len(lags) // 2 :]))
            growth = (later - early) / SET
            if reached < 0.97 * rate:
                ended = f"the committing process made {reached:,.0f}/s"
                break
            if growth > GROWTH_SETS_MAX:
                ended = f"the lag grew by {growth:.0f} sets at {rate:,}/s"
                break
            held, lag = reached, later
    return [
        Figure("sustained rate, change sets of 100", held, "changes/s", f"raw {limit:,.0f}/s", held, 10_000, True),
        told("sustained: lag meanwhile", lag, "events", f"ended by {ended}"),
    ]


@contextlib.contextmanager
def _live(grocery: Grocery) -> Iterator[tuple[Site, Store]]:
    """HQ and one store, live with the whole catalogue."""
    with Site() as site:
        site.start_hq()
        site.import_all(grocery)
        store = site.new_store("store")
        store.live_after_s(site.wait_all_published())
        (site.directory / "skus.json").write_text(json.dumps(list(grocery.prices)), encoding="ascii")
        yield site, store


class _Committer:
    """The committing process; ended with the block, whatever happens."""

    def __init__(self, site: Site, sets_per_s: float, seconds: float, changes_each: int) -> None:
        numbers = [str(number) for number in (sets_per_s, seconds, changes_each)]
        files = [str(site.master_path), str(site.directory / "skus.json")]
        self._ends_s = time.monotonic() + seconds + ARRIVES_WITHIN_S
        self._told = site.directory / "commits"  # a pipe would be full before anybody reads it
        with self._told.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.measures.committer", *files, *numbers], env=environment({}), stdout=out
            )

    def __enter__(self) -> _Committer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def running(self) -> bool:
        """Raises StepFailed if it, or whoever waits for what it made, takes far longer than it should."""
        if time.monotonic() > self._ends_s:
            raise StepFailed(f"commits or their arrival are not done {ARRIVES_WITHIN_S:g} s after their time")
        return self._process.poll() is None

    def commits(self) -> Commits:
        if self._process.wait(ARRIVES_WITHIN_S):
            raise StepFailed(f"the committing process ended with exit code {self._process.returncode}")
        lines = self._told.read_text(encoding="ascii").splitlines()
        return [(int(seq), int(at_ns)) for seq, at_ns in (line.split() for line in lines)]


def _watch(store: Store, committer: _Committer) -> dict[int, int]:
    """When each seq became visible to a reader of the store's file, until all that was committed is."""
    seen: dict[int, int] = {}
    with contextlib.closing(_reader(store.replica)) as db:
        last, version, until = _position(db), None, None
        while until is None or last < until:
            if not committer.running and until is None:
                until = committer.commits()[-1][0]
            now = db.execute("PRAGMA data_version").fetchone()
            if now == version:
                time.sleep(LOOK_S)
                continue
            version, position, at_ns = now, _position(db), time.monotonic_ns()
            seen.update(dict.fromkeys(range(last + 1, position + 1), at_ns))
            last = max(last, position)
    return seen


def _lags(site: Site, store: Store, committer: _Committer) -> list[int]:
    """HQ's newest seq less the store's position, every 50 ms while changes are made."""
    lags = []
    with (
        contextlib.closing(_reader(store.replica)) as db,
        contextlib.closing(_reader(site.master_path)) as master,
    ):
        while committer.running:
            (head,) = master.execute("SELECT head_seq FROM streams WHERE stream = 'price/all'").fetchone()
            lags.append(int(head) - _position(db))
            time.sleep(0.05)
        (head,) = master.execute("SELECT head_seq FROM streams WHERE stream = 'price/all'").fetchone()
        until(lambda: _position(db) >= head, f"the store is at {head}", ARRIVES_WITHIN_S, poll_s=0.01)
    return lags


def _reader(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _position(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT position FROM streams WHERE stream = 'price/all'").fetchone()[0])


def _share(ordered: list[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def _round_trips(port: int) -> list[float]:
    """Milliseconds of an empty message to the broker and back, each alone, sorted."""
    loop, came = Loop(), 0

    def count(_: Publish) -> None:
        nonlocal came
        came += 1

    client = Client(loop, port, "round-trip", count)
    try:
        client.start()
        loop.run(lambda: client.connected, 10.0, "connected")
        client.subscribe(["bench/round-trip"])
        loop.run(lambda: client.subscribed == 1, 10.0, "subscribed")
        taken = []
        for number in range(ROUND_TRIPS):
            began = time.perf_counter()
            client.publish(Message("bench/round-trip", b""))
            loop.run(lambda number=number: came > number, 10.0, "an empty message came back")  # type: ignore[misc]
            taken.append((time.perf_counter() - began) * 1000)
    finally:
        loop.close()
    return sorted(taken)


def _raw_rate(site: Site) -> float:
    """The same upserts and events a second into a copy of the master, 100 a durable transaction, by SQLite alone."""
    with contextlib.closing(connect(site.directory / "raw.db", "rwc")) as db:
        with contextlib.closing(_reader(site.master_path)) as master:
            master.backup(db)
        (head,) = db.execute("SELECT head_seq FROM streams WHERE stream = 'price/all'").fetchone()
        sql = statements(PRICES.context)
        rows = _renumbered(db, head, sql.columns, "master_price")
        events = _renumbered(db, head, EVENT_COLUMNS, "events WHERE stream = 'price/all'")
        began = time.perf_counter()
        for start in range(0, len(rows), SET):
            db.execute("BEGIN IMMEDIATE")
            db.executemany(_insert("master_price", sql.columns) + sql.upsert, rows[start : start + SET])
            db.executemany(_insert("events", EVENT_COLUMNS), events[start : start + SET])
            db.execute("COMMIT")
        return len(rows) / (time.perf_counter() - began)


def _renumbered(db: sqlite3.Connection, head: int, columns: tuple[str, ...], source: str) -> list[tuple[Any, ...]]:
    """Rows that are there, with the seqs that come next."""
    found = db.execute(f"SELECT {', '.join(columns)} FROM {source} ORDER BY seq LIMIT ?", (RAW_ROWS,))
    at = columns.index("seq")
    return [(*row[:at], head + number, *row[at + 1 :]) for number, row in enumerate(found, 1)]


def _insert(table: str, columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
