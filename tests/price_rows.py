"""Prices as a replica gets them, and what a reader finds of them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.streams import Stream
from storenode.replica.writer import Replica

PRICE = Stream.parse("price/all", BUILT_IN)
Batch = tuple[list[Row], list[Row]]

EPOCH = "000000000001-00000000"
NOW_MS = 1_760_000_000_000


def line(seq: int, sku: str, amount: int) -> Row:
    return (seq, sku, "regular", "EUR", f"[[1700000000,null,{amount}]]")


def gone(seq: int, sku: str) -> Row:
    return (seq, sku, "regular")


def advance(replica: Replica, position: int, *batches: Batch, stream: Stream = PRICE, replace: bool = False) -> int:
    return replica.apply(
        stream,
        epoch=EPOCH,
        position=position,
        digest=f"{position:032x}",
        head_seq=position,
        batches=batches,
        replace=replace,
        wall_ms=NOW_MS,
    )


def rows_of(path: Path, stream: Stream = PRICE) -> dict[str, int]:
    """What another process would read: sku to seq."""
    db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        return dict(db.execute(f"SELECT sku, seq FROM {stream.context.table} WHERE scope = ?", (stream.scope,)))
    finally:
        db.close()
