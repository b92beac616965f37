"""The limits: what SQLite alone needs for the same rows in the same tables, and Python for its start."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report import middle
from hq.master import schema as hq_schema
from hq.master.connection import connect
from hq.master.store import Master
from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.streams import Stream
from storenode.replica.writer import Replica

ROWS_PER_TRANSACTION = 10_000
INTERPRETER_STARTS = 5

Rows = Sequence[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Limit:
    """What a bootstrap cannot do without, in seconds."""

    insert_s: float
    search_s: float
    interpreter_s: float

    @property
    def total_s(self) -> float:
        return self.insert_s + self.search_s + self.interpreter_s


def rows_of(master_path: Path, streams: Sequence[str]) -> dict[Stream, list[Row]]:
    """The live rows that HQ publishes, in its order."""
    with Master(master_path, BUILT_IN) as master:
        found = {row.stream: row.head_seq for row in master.streams() if str(row.stream) in streams}
        return {stream: master.rows_between(stream, 1, head_seq)[0] for stream, head_seq in found.items()}


def bootstrap(rows: dict[Stream, list[Row]]) -> Limit:
    """Raw inserts into a replica's own tables, 10,000 rows a transaction, an FTS5 rebuild, an interpreter's start."""
    with tempfile.TemporaryDirectory(prefix="storenode-bench-") as directory:
        replica = Replica.open(Path(directory) / "replica.db", ("all",), BUILT_IN)
        with closing(replica.connection) as db:
            bound = {stream: [(*row, stream.scope) for row in part] for stream, part in rows.items()}
            began = time.perf_counter()
            for stream, part in bound.items():
                names = (*stream.context.columns, "scope")
                _insert(db, stream.context.table, names, part, ROWS_PER_TRANSACTION)
            inserted = time.perf_counter()
            db.execute("INSERT INTO product_search(product_search) VALUES ('rebuild')")
            rebuilt = time.perf_counter()
    return Limit(inserted - began, rebuilt - inserted, _interpreter_s())


def _interpreter_s() -> float:
    """Seconds from start to end of an interpreter that does nothing."""
    taken = []
    for _ in range(INTERPRETER_STARTS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        taken.append(time.perf_counter() - began)
    return middle(taken)


def master_s(master_path: Path) -> float:
    """Seconds of raw inserts of what `master_path` holds of products and events into the tables of a new master."""
    with closing(sqlite3.connect(master_path)) as db:
        tables = {name: _table(db, f"SELECT * FROM {name} ORDER BY seq") for name in ("master_product", "events")}
    with (
        tempfile.TemporaryDirectory(prefix="storenode-bench-") as directory,
        closing(connect(Path(directory) / "hq.db", "rwc")) as db,
    ):
        hq_schema.create(db)
        began = time.perf_counter()
        for name, (columns, rows) in tables.items():
            _insert(db, name, columns, rows, len(rows))
        return time.perf_counter() - began


def _table(db: sqlite3.Connection, sql: str) -> tuple[tuple[str, ...], Rows]:
    found = db.execute(sql)
    return tuple(column[0] for column in found.description), found.fetchall()


def _insert(db: sqlite3.Connection, table: str, columns: Sequence[str], rows: Rows, rows_each: int) -> None:
    sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    for start in range(0, len(rows), rows_each):
        db.execute("BEGIN")
        db.executemany(sql, rows[start : start + rows_each])
        db.execute("COMMIT")
