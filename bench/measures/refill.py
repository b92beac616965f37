"""A store's writer that catches up without end: `python -m bench.measures.refill REPLICA COUNT`.

Fills a new replica with COUNT products and prices, and then applies all of them again and again, each time as a
catch-up of one transaction, as the daemon does; it moves the log into the file where the daemon would.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.measures.rows import EPOCH, PRICES, PRODUCTS, price_rows, product_rows
from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.rows import EMPTY
from storelink.contract.streams import Stream
from storenode.node import WAL_BYTES_TARGET
from storenode.replica.writer import Replica
from testbed.feeds import grocery

ROWS_EACH = 3_000


def main(path: Path, count: int) -> None:
    replica, feed = Replica.open(path, ("all",), BUILT_IN), grocery()
    catalogue = {PRODUCTS: product_rows(feed, count), PRICES: price_rows(feed, count)}
    turn = 0
    while True:
        for stream, rows in catalogue.items():
            _catch_up(replica, stream, [(turn * count + n + 1, *row[1:]) for n, row in enumerate(rows)])
            if replica.wal_bytes() > WAL_BYTES_TARGET:
                replica.checkpoint()
        turn += 1


def _catch_up(replica: Replica, stream: Stream, rows: Sequence[Row]) -> None:
    position = int(str(rows[-1][0]))
    parts = ((rows[at : at + ROWS_EACH], ()) for at in range(0, len(rows), ROWS_EACH))
    replica.apply(
        stream,
        epoch=EPOCH,
        position=position,
        digest=EMPTY,
        head_seq=position,
        batches=parts,
        replace=False,
        wall_ms=time.time_ns() // 1_000_000,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
