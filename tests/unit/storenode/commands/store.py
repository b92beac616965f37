"""A store for the tests of the commands: rows, a heartbeat, and commands typed."""

from __future__ import annotations

import os
import time

from click.testing import CliRunner, Result

from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.rows import row_hash, to_hex
from storelink.contract.streams import Stream
from storenode.cli import main
from storenode.replica.writer import Replica

PRICE, PRODUCT = Stream.parse("price/all", BUILT_IN), Stream.parse("product/all", BUILT_IN)
EPOCH = "000000000001-00000000"
LINE: Row = (1, "4011", "regular", "EUR", "[[1700000000,null,199]]")
MILK: Row = (1, "4011", "5012345678900", "Milk", *(None,) * 9, '{"organic":true}')


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def put(replica: Replica, stream: Stream, row: Row) -> None:
    replica.apply(
        stream,
        epoch=EPOCH,
        position=1,
        digest=to_hex(row_hash(row)),
        head_seq=1,
        batches=[([row], [])],
        replace=False,
        wall_ms=now_ms(),
    )


def beat(replica: Replica, *, seen_s: int = 0) -> None:
    seen_ms = now_ms() - seen_s * 1000
    replica.heartbeat(
        store_id="store-7",
        pid=os.getpid(),
        connected=True,
        started_at_ms=seen_ms - 60_000,
        counters={"rows": 2},
        wall_ms=seen_ms,
    )


def typed(replica: Replica, *words: str) -> Result:
    return CliRunner().invoke(main, ["--db", str(replica.path), *words], env={"STORENODE_CONFIG": ""})
