"""A real `storenode api` on a real replica, for tests."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.rows import row_hash, to_hex
from storelink.contract.streams import Stream
from storenode.replica.writer import Replica
from testbed.broker import free_port
from testbed.process import Process, environment, until

PRICE, PRODUCT = Stream.parse("price/all", BUILT_IN), Stream.parse("product/all", BUILT_IN)
EPOCH = "000000000001-00000000"
MILK: Row = (1, "4011", "4006381333931", "Organic Milk", *(None,) * 9, '{"organic":true}')
BREAD: Row = (2, "40/12", "4006381333931", "Rye Bread", *(None,) * 10)
MILK_LINE: Row = (1, "4011", "regular", "EUR", "[[1700000000,1800000000,199],[1800000000,null,179]]")
STORENODE = [sys.executable, "-P", "-m", "storenode.cli"]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def put(replica: Replica, stream: Stream, rows: Sequence[Row], *, position: int | None = None) -> None:
    """Move a stream to `position`; the digest is the last row's, which nothing here looks at.

    HQ was heard an hour from now, so that a stream stays live however slow the machine is.
    """
    seq = int(str(rows[-1][0])) if position is None else position
    replica.apply(
        stream,
        epoch=EPOCH,
        position=seq,
        digest=to_hex(row_hash(rows[-1])),
        head_seq=seq,
        batches=[(rows, [])],
        replace=False,
        wall_ms=now_ms() + 3_600_000,
    )


def beat(replica: Replica) -> None:
    """Say that the daemon lives; whoever asks also looks whether somebody holds the replica's lock."""
    replica.heartbeat(
        store_id="store-7",
        pid=os.getpid(),
        connected=True,
        started_at_ms=now_ms(),
        counters={"batches": 2},
        wall_ms=now_ms(),
    )


def filled(path: Path) -> Replica:
    """A replica with two products that share a gtin and one price, its search index fed."""
    replica = Replica.open(path, ("all", "price/zone-west"), BUILT_IN)
    put(replica, PRODUCT, [MILK, BREAD])
    put(replica, PRICE, [MILK_LINE])
    replica.feed_search()
    beat(replica)
    return replica


class ApiServer:
    """One process; `address` as `storenode api --listen` takes it."""

    def __init__(self, db: Path, address: str | None = None, **settings: str) -> None:
        self.port = free_port()
        self.address = address or f"127.0.0.1:{self.port}"
        self.outbox = db.with_name("outbox.db")
        self.log = db.with_name(f"api-{self.port}.log")
        environ = environment({"STORENODE_DB": str(db), "STORENODE_OUTBOX": str(self.outbox)} | settings)
        self.process = Process([*STORENODE, "api", "--listen", self.address], environ, self.log).start()
        until(lambda: self.answers() or not self.process.running, "the API listens")

    def answers(self) -> bool:
        try:
            self.connection().close()
        except OSError:
            return False
        return True

    def connection(self) -> socket.socket:
        """A plain socket to the server."""
        if not self.address.startswith("unix:"):
            return socket.create_connection(("127.0.0.1", self.port), 20)
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            found.connect(self.address.removeprefix("unix:"))
        except OSError:
            found.close()
            raise
        return found

    def client(self) -> httpx.Client:
        """An HTTP client, over TCP or the unix socket; nobody's proxy is asked."""
        if self.address.startswith("unix:"):
            transport = httpx.HTTPTransport(uds=self.address.removeprefix("unix:"))
            return httpx.Client(transport=transport, base_url="http://localhost", trust_env=False)
        return httpx.Client(base_url=f"http://{self.address}", trust_env=False, timeout=20.0)

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.log.read_text().splitlines() if line.startswith("{")]

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.running:
            self.process.send(number)
        return self.process.wait()
