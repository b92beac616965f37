"""A measured chain: a real broker, `hq run` and stores as processes, directly connected, in one directory."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from hq.master.store import Master
from hq.publish.publication import read_published
from storelink.contract.contexts import BUILT_IN
from testbed import commands
from testbed.broker import MOSQUITTO, Broker, mosquitto_as_deployed, rumqttd
from testbed.chain import Chain
from testbed.feeds import Grocery, write_prices, write_products
from testbed.process import Process, Usage, command, until

WAIT_S = 900.0
POLL_S = 0.003
PUBLISHED_POLL_S = 0.05

Heads = Mapping[str, int]
"""HQ's newest seq by stream."""


class Site(Chain):
    """A chain in a directory that goes with it, with the broker's deployed limits and every command spawned."""

    def __init__(self) -> None:
        self.measured: list[Store] = []
        directory = Path(tempfile.mkdtemp(prefix="storenode-bench-"))
        super().__init__(directory, hq_settings={}, run=commands.spawn)

    def make_broker(self) -> Broker:
        make = rumqttd if MOSQUITTO is None else mosquitto_as_deployed
        return make(self.directory, self.port)

    def close(self) -> None:
        """End every process, however it fares, and remove the directory."""
        for store in self.measured:
            store.kill()
        super().close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def broker_url(self, name: str) -> str:
        """Measured stores have no line that can be cut."""
        del name
        return self.broker.url

    def import_all(self, grocery: Grocery) -> None:
        """Import the catalogue's products and prices."""
        if grocery.products:
            write_products(self.directory / "products.csv", grocery)
            self.hq_json("import", "product", str(self.directory / "products.csv"))
        write_prices(self.directory / "prices.csv", grocery.prices)
        self.hq_json("import", "price", str(self.directory / "prices.csv"))

    def start_hq(self) -> Process:
        return self.hq_run.start()

    def stop_hq(self) -> Usage:
        """Stop `hq run`; the broker goes on serving what it published."""
        return self.hq_run.stop_well()

    def heads(self) -> Heads:
        with Master(self.master_path, BUILT_IN) as master:
            return {str(row.stream): row.head_seq for row in master.streams()}

    def wait_all_published(self) -> Heads:
        """Wait until the broker has acknowledged everything that HQ has; return how much that is."""
        heads = self.heads()

        def all_out() -> bool:
            self.hq_run.check()
            streams = read_published(self.master_path)["streams"]
            return all(streams.get(name, {"published": 0})["published"] == seq for name, seq in heads.items())

        until(all_out, "HQ has published all", WAIT_S, poll_s=PUBLISHED_POLL_S)
        return heads

    def new_store(self, name: str, scopes: str = "all") -> Store:
        """A store that is not started yet."""
        store = Store(self, name, scopes)
        self.measured.append(store)
        return store


class Store(Process):
    """One store's `storenode run`, with its directory."""

    def __init__(self, site: Site, name: str, scopes: str) -> None:
        self.replica = site.replica(name)
        self.directory = self.replica.parent
        self.directory.mkdir()
        environ = site.store_environ(name) | {"STORENODE_SCOPES": scopes}
        super().__init__([command("storenode"), "run"], environ, site.directory / f"{name}.log")

    def live_after_s(self, heads: Heads) -> float:
        """Start it; return the seconds until every stream that it follows is live at HQ's head and search is ready."""
        self.start()
        with contextlib.ExitStack() as stack:
            reader: list[sqlite3.Connection] = []

            def arrived() -> bool:
                self.check()
                if not reader and (found := _opened(self.replica)) is not None:
                    reader.append(stack.enter_context(contextlib.closing(found)))
                return bool(reader) and is_live(reader[0], heads, self.pid)

            until(arrived, f"{self.directory.name} is live", WAIT_S, poll_s=POLL_S)
            return time.perf_counter() - self.began_s

    def wait_proven(self) -> None:
        """Wait until it has done what it does once after each start: every row hashed, the file checked."""
        with contextlib.closing(_connected(self.replica)) as db:
            unproven = "SELECT count(*) FROM streams WHERE verified_at_ms IS NULL"
            until(lambda: db.execute(unproven).fetchone()[0] == 0, f"{self.directory.name} is proven", WAIT_S)

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
