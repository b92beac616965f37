"""A measured chain: a real broker, `hq run` and stores as processes, directly connected, in one directory."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from bench.broker import Broker
from bench.feeds import Grocery, write_prices, write_products
from bench.process import BenchFailed, Process, Usage, command, environment
from hq.master.store import Master
from hq.publish.publication import read_published
from storelink.contract.contexts import BUILT_IN

WAIT_S = 900.0
POLL_S = 0.003
PUBLISHED_POLL_S = 0.05

Heads = Mapping[str, int]
"""HQ's newest seq by stream."""


class Site:
    """As a context: makes the directory and the master, starts the broker, ends and removes everything."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="storenode-bench-"))
        self.broker = Broker(self.directory)
        self.master_path = self.directory / "hq.db"
        self.stores: list[Store] = []
        self.hq_run: Process | None = None

    def __enter__(self) -> Self:
        try:
            self.broker.start()
            self.hq("init", as_json=False)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process, however it fares, and remove the directory."""
        for process in (self.hq_run, *(store.process for store in self.stores)):
            if process is not None:
                process.kill()
        self.broker.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def hq_settings(self) -> dict[str, str]:
        return {"HQ_DB": str(self.master_path), "HQ_BROKER": self.broker.url}

    def hq(self, *arguments: str, as_json: bool = True) -> Any:
        """Run `hq ... --json`; return what it prints. Raises BenchFailed."""
        done = subprocess.run(
            [command("hq"), *arguments, *(["--json"] if as_json else [])],
            env=environment(self.hq_settings),
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        if done.returncode:
            raise BenchFailed(f"`hq {' '.join(arguments)}`: exit code {done.returncode}: {done.stderr[-500:]}")
        return json.loads(done.stdout) if as_json else None

    def import_all(self, grocery: Grocery) -> None:
        """Import the catalogue's products and prices."""
        if grocery.products:
            write_products(self.directory / "products.csv", grocery)
            self.hq("import", "product", str(self.directory / "products.csv"))
        write_prices(self.directory / "prices.csv", grocery.prices)
        self.hq("import", "price", str(self.directory / "prices.csv"))

    def start_hq(self) -> Process:
        self.hq_run = Process([command("hq"), "run"], self.hq_settings, self.directory / "hq.log")
        return self.hq_run

    def stop_hq(self) -> Usage:
        """Stop `hq run`; the broker goes on serving what it published."""
        if self.hq_run is None:
            raise BenchFailed("hq run was not started")
        process, self.hq_run = self.hq_run, None
        try:
            return process.stop()
        except BaseException:
            process.kill()
            raise

    def heads(self) -> Heads:
        with Master.open(self.master_path, BUILT_IN) as master:
            return {str(row.stream): row.head_seq for row in master.streams()}

    def wait_published(self) -> Heads:
        """Wait until the broker has acknowledged everything that HQ has; return how much that is."""
        heads = self.heads()

        def all_out() -> bool:
            if self.hq_run is not None:
                self.hq_run.check()
            streams = read_published(self.master_path)["streams"]
            return all(streams.get(name, {"published": 0})["published"] == seq for name, seq in heads.items())

        wait_for(all_out, "HQ has published all", PUBLISHED_POLL_S)
        return heads

    def store(self, name: str, scopes: str = "all") -> Store:
        """A store that is not started yet."""
        store = Store(self, name, scopes)
        self.stores.append(store)
        return store


class Store:
    """One store's directory and, while it runs, its process."""

    def __init__(self, site: Site, name: str, scopes: str) -> None:
        self.directory = site.directory / name
        self.directory.mkdir()
        self.replica = self.directory / "replica.db"
        self.process: Process | None = None
        self._settings = {
            "STORENODE_DB": str(self.replica),
            "STORENODE_STORE_ID": name,
            "STORENODE_BROKER": site.broker.url,
            "STORENODE_SCOPES": scopes,
        }

    def start(self) -> Process:
        self.process = Process([command("storenode"), "run"], self._settings, self.directory / "log")
        return self.process

    def stop(self) -> Usage:
        assert self.process is not None
        used = self.process.stop()
        self.process = None
        return used

    def live_after_s(self, heads: Heads) -> float:
        """Start it; return the seconds until every stream that it follows is live at HQ's head and search is ready."""
        process = self.start()
        with contextlib.ExitStack() as stack:
            reader: list[sqlite3.Connection] = []

            def arrived() -> bool:
                process.check()
                if not reader and (found := _opened(self.replica)) is not None:
                    reader.append(stack.enter_context(contextlib.closing(found)))
                return bool(reader) and is_live(reader[0], heads, process.pid)

            wait_for(arrived, f"{self.directory.name} is live", POLL_S)
            return time.perf_counter() - process.began_s

    def wait_proven(self) -> None:
        """Wait until it has done what it does once after each start: every row hashed, the file checked."""
        with contextlib.closing(_connected(self.replica)) as db:
            unproven = "SELECT count(*) FROM streams WHERE verified_at_ms IS NULL"
            wait_for(lambda: db.execute(unproven).fetchone()[0] == 0, f"{self.directory.name} is proven", POLL_S)

    def counters(self) -> dict[str, int]:
        """What it counted in its last run; complete once it has stopped."""
        with contextlib.closing(_connected(self.replica)) as db:
            found: dict[str, int] = json.loads(db.execute("SELECT counters FROM daemon").fetchone()[0])
            return found

    def resemble(self, other: Store) -> None:
        """Take a stopped store's replica as one's own."""
        shutil.rmtree(self.directory)
        shutil.copytree(other.directory, self.directory)


def is_live(db: sqlite3.Connection, heads: Heads, pid: int) -> bool:
    """Whether a replica is kept by this daemon, connected, with rows at HQ's head and search ready.

    A daemon before it may have left `live` behind, which is believed for half a minute.
    """
    if db.execute("SELECT pid, connected FROM daemon").fetchall() != [(pid, 1)]:
        return False
    found = db.execute("SELECT stream, state, position FROM freshness").fetchall()
    rows_there = all(state == "live" and position >= heads.get(name, 0) for name, state, position in found)
    return bool(found) and rows_there and search_ready(db)


def search_ready(db: sqlite3.Connection) -> bool:
    """Whether the search index holds what the rows do."""
    return all(state == "ready" for (state,) in db.execute("SELECT state FROM read_models"))


def wait_for(condition: Callable[[], bool], what: str, poll_s: float, timeout_s: float = WAIT_S) -> None:
    """Wait until a condition holds. Raises BenchFailed after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise BenchFailed(f"not within {timeout_s:g} s: {what}")
        time.sleep(poll_s)


def _opened(path: Path) -> sqlite3.Connection | None:
    """The replica once its tables are there; before that nobody but its maker touches the file."""
    if not path.with_name(path.name + "-wal").exists():
        return None
    db = _connected(path)
    try:
        db.execute("SELECT stream FROM freshness LIMIT 1").fetchall()
    except sqlite3.OperationalError:
        db.close()
        return None
    return db


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
