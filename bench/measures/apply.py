"""Applying: received segment bytes to committed rows, against raw `executemany` into the same tables.

The replica's own path is measured: strict decoding, folding, one transaction. A reader process looks up
products meanwhile and when the machine is idle.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bench.measures.rows import EPOCH, PRICES, PRODUCTS, ROOT, price_rows, product_rows, segments
from bench.report import Figure, middle
from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.messages import Message, decode_segment
from storenode.replica.writer import Replica, upsert_sql
from testbed.feeds import Grocery

RAW_ROWS_PER_TRANSACTION = 10_000
PRODUCTS_PER_SEGMENT, PRICES_PER_SEGMENT = 3_000, 15_000
SMALL, CHANGE_SET = 50_000, 10_000
SPREAD = "10,000 rows all over it change"
"""Told, not judged: the larger replica has a page to write for nearly each row, the small one for each tenth."""


READER = """
import json, sqlite3, sys, time
path, sku, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
taken, end = [], time.perf_counter() + seconds
while time.perf_counter() < end:
    began = time.perf_counter()
    db.execute("SELECT name FROM products WHERE sku = ?", (sku,)).fetchone()
    taken.append(time.perf_counter() - began)
    time.sleep(0.0005)
taken.sort()
print(json.dumps(taken[int(len(taken) * 0.99)] * 1000))
"""


def measure(grocery: Grocery, count: int, runs: int) -> list[Figure]:
    """Figures of apply, growth, bytes and lookups, for `count` rows."""
    rows = product_rows(grocery, count)
    sealed = segments(PRODUCTS, rows, PRODUCTS_PER_SEGMENT)
    priced = segments(PRICES, price_rows(grocery, count), PRICES_PER_SEGMENT)
    raw, applied = zip(*((_raw(rows), _applied(sealed, count)) for _ in range(runs)), strict=True)
    ratio = middle([r / a for r, a in zip(raw, applied, strict=True)])
    return [
        Figure(
            f"apply, {count:,} products",
            count / middle(applied),
            "rows/s",
            f"executemany {count / middle(raw):,.0f} rows/s",
            ratio,
            0.70,
            True,
        ),
        _size("product", sealed, count, 35),
        _size("price", priced, count, 15),
        *_growth(rows, runs),
        *_lookups(sealed, count),
    ]


def _size(name: str, sealed: Sequence[Message], count: int, target: float) -> Figure:
    each = sum(len(m.payload) for m in sealed) / count
    return Figure(f"bytes of a {name} row in segments", each, "B", "-", each, target, False)


def _raw(rows: Sequence[Row]) -> float:
    """Seconds of raw upserts, sorted as they come, into a replica's own tables."""
    with _Replica() as replica:
        bound = [("all", *row) for row in rows]
        sql = upsert_sql(PRODUCTS.context)
        began = time.perf_counter()
        for start in range(0, len(bound), RAW_ROWS_PER_TRANSACTION):
            replica.connection.execute("BEGIN")
            replica.connection.executemany(sql, bound[start : start + RAW_ROWS_PER_TRANSACTION])
            replica.connection.execute("COMMIT")
        return time.perf_counter() - began


def _applied(sealed: Sequence[Message], count: int) -> float:
    with _Replica() as replica:
        began = time.perf_counter()
        _apply(replica, sealed, count)
        return time.perf_counter() - began


def _apply(replica: Replica, sealed: Sequence[Message], position: int) -> None:
    def batches() -> Iterator[tuple[Sequence[Row], Sequence[Row]]]:
        for message in sealed:
            segment = decode_segment(ROOT, message, BUILT_IN)
            yield segment.rows, segment.deleted

    replica.apply(
        PRODUCTS,
        epoch=EPOCH,
        position=position,
        digest="0" * 32,
        head_seq=position,
        batches=batches(),
        replace=False,
        wall_ms=0,
    )


def _growth(rows: Sequence[Row], runs: int) -> list[Figure]:
    """The rates of further change sets into a full replica, against the same into one of SMALL rows."""
    kinds: dict[str, Callable[[Sequence[Row]], list[Row]]] = {
        "one row in 20 changes": lambda held: _changed(held[::20]),
        "10,000 new rows": lambda held: [(*row[:1], f"new-{row[1]}", *row[2:]) for row in held[:CHANGE_SET]],
        SPREAD: lambda held: _changed(held[:: len(held) // CHANGE_SET]),
    }
    ratios: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(runs):
        small, full = (_rates(rows[:held], kinds) for held in (SMALL, len(rows)))
        for name in kinds:
            ratios[name].append(full[name] / small[name])
    return [
        Figure(
            f"growth to {len(rows):,}: {name}",
            middle(each),
            "x",
            f"into {SMALL:,} rows",
            middle(each),
            None if name == SPREAD else 0.70,
            True,
        )
        for name, each in ratios.items()
    ]


def _changed(rows: Sequence[Row]) -> list[Row]:
    return [(*row[:3], "new", *row[4:]) for row in rows]


def _rates(held: Sequence[Row], kinds: Mapping[str, Callable[[Sequence[Row]], list[Row]]]) -> dict[str, float]:
    """Rows a second of each kind of change set, one after the other, into a replica that holds `held`."""
    found = {}
    with _Replica() as replica:
        at = len(held)
        _apply(replica, segments(PRODUCTS, held, PRODUCTS_PER_SEGMENT), at)
        for name, make in kinds.items():
            replica.checkpoint(truncate=True)
            changed = [(at + 1 + n, *row[1:]) for n, row in enumerate(make(held))]
            batches: list[tuple[Sequence[Row], Sequence[Row]]] = [
                (changed[n : n + PRODUCTS_PER_SEGMENT], []) for n in range(0, len(changed), PRODUCTS_PER_SEGMENT)
            ]
            at += len(changed)
            began = time.perf_counter()
            replica.apply(
                PRODUCTS,
                epoch=EPOCH,
                position=at,
                digest="0" * 32,
                head_seq=at,
                batches=batches,
                replace=False,
                wall_ms=0,
            )
            found[name] = len(changed) / (time.perf_counter() - began)
    return found


def _lookups(sealed: Sequence[Message], count: int) -> list[Figure]:
    """p99 of a point lookup by another process, while everything is applied once more, and idle."""
    with _Replica() as replica:
        _apply(replica, sealed[:10], 10 * PRODUCTS_PER_SEGMENT)
        idle = _reader(replica.path, 2.0).communicate()[0]
        reader = _reader(replica.path, max(2.0, count / 100_000))
        _apply(replica, sealed, count)
        busy = reader.communicate()[0]
    idle_ms, busy_ms = json.loads(idle), json.loads(busy)
    limit = f"idle {idle_ms:.3f} ms"
    return [
        Figure("lookup p99 while applying", busy_ms, "ms", "1 ms", busy_ms, 1.0, False),
        Figure("lookup p99 while applying, against idle", busy_ms, "ms", limit, busy_ms / idle_ms, 3.0, False),
    ]


def _reader(path: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", READER, str(path), "100", str(seconds)], stdout=subprocess.PIPE, text=True
    )


class _Replica:
    """A replica in a directory that goes with it."""

    def __enter__(self) -> Replica:
        self._directory = Path(tempfile.mkdtemp(prefix="storenode-bench-"))
        self._replica = Replica.open(self._directory / "replica.db", ("all",), BUILT_IN)
        return self._replica

    def __exit__(self, *_: object) -> None:
        self._replica.connection.close()
        shutil.rmtree(self._directory)
