"""The tables `master_<context>`: every entity's newest row, or its tombstone.

The only module that writes them; each function within the transaction that the caller has begun.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hq.core.changes import Stored
from storelink.contract.contexts import Column, Context, Row
from storelink.contract.streams import Stream
from storelink.host.sqlite import insert


@dataclass(frozen=True, slots=True)
class Statements:
    """The SQL of one context. A stored row is `(seq, *keys, *values, deleted)`; `live` ends before `deleted`."""

    one: str
    live: str
    deleted: str
    between: str
    count: str
    columns: tuple[str, ...]
    upsert: str
    oldest_tombstones: str
    remove_tombstones: str


@lru_cache
def statements(context: Context) -> Statements:
    table = f"[master_{context.name}]"
    keys = ", ".join(f"[{name}]" for name in context.key_names)
    values = ", ".join(f"[{name}]" for name in context.value_names)
    updates = ", ".join(f"[{n}] = excluded.[{n}]" for n in (*context.value_names, "seq", "deleted"))
    select = f"SELECT seq, {keys}, {values}, deleted FROM {table} WHERE scope = ?"
    return Statements(
        one=select + "".join(f" AND [{name}] = ?" for name in context.key_names),
        live=f"SELECT seq, {keys}, {values} FROM {table} WHERE scope = ? AND deleted = 0",
        deleted=f"SELECT seq, {keys} FROM {table} WHERE scope = ? AND deleted = 1",
        between=f"{select} AND seq BETWEEN ? AND ? ORDER BY seq LIMIT ?",
        count=f"SELECT count(*) FROM {table} WHERE scope = ? AND seq BETWEEN ? AND ?",
        columns=("scope", "seq", *context.key_names, *context.value_names, "deleted"),
        upsert=f" ON CONFLICT (scope, {keys}) DO UPDATE SET {updates}",
        oldest_tombstones=(
            f"SELECT m.seq, e.at_ms FROM {table} AS m INDEXED BY [{tombstone_index(context)}]"
            " JOIN events AS e ON e.stream = ? AND e.seq = m.seq"
            " WHERE m.scope = ? AND m.deleted = 1 ORDER BY m.seq LIMIT ?"
        ),
        remove_tombstones=f"DELETE FROM {table} WHERE scope = ? AND deleted = 1 AND seq <= ?",
    )


def tombstone_index(context: Context) -> str:
    """The name of the partial index that finds tombstones by seq."""
    return f"idx_master_{context.name}_tombstones"


def stored(context: Context, row: tuple[Any, ...]) -> Stored:
    """Take `(seq, *keys, *values, deleted)` apart."""
    return Stored(row[: 1 + len(context.keys)], True) if row[-1] else Stored(row[:-1], False)


def write(db: sqlite3.Connection, stream: Stream, rows: Iterable[tuple[Row, bool]]) -> None:
    """
    Put rows in their entities' places.

    Args:
        rows: each `(seq, *keys, *values)` with False, or `(seq, *keys)` with True: a tombstone.
    """
    context = stream.context
    blank = (None,) * len(context.values)
    sql = statements(context)
    found = ((stream.scope, *row, *blank, 1) if deleted else (stream.scope, *row, 0) for row, deleted in rows)
    insert(db, f"master_{context.name}", sql.columns, found, sql.upsert)


def fill(db: sqlite3.Connection, context: Context, column: Column) -> None:
    """Give every live row the default of a column that its context has gained."""
    if column.default is not None:
        db.execute(f"UPDATE [master_{context.name}] SET [{column.name}] = ? WHERE deleted = 0", (column.default,))


def remove_tombstones(db: sqlite3.Connection, stream: Stream, floor: int) -> int:
    """Remove the tombstones with a seq up to `floor`; returns how many there were."""
    return db.execute(statements(stream.context).remove_tombstones, (stream.scope, floor)).rowcount
