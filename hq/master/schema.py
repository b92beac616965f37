"""The master's tables, made from the declarations of the contexts, and the SQL that names them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hq.core.changes import Stored
from hq.master import epochs
from storelink.contract.contexts import BUILT_IN, Column, Context
from storelink.host.sqlite import database

APPLICATION_ID = 0x53744851
"""Marks an SQLite file as a master ("StHQ")."""

VERSION = 3
"""To be raised with every change of a declaration here: a copy is restored by the version that made it."""

STREAM_COLUMNS: dict[str, type] = {
    "stream": str,
    "epoch": str,
    "head_seq": int,
    "digest": str,
    "rows": int,
    "floor": int,
    "updated_at_ms": int,
}

EVENTS = """
CREATE TABLE events (
    stream TEXT NOT NULL, seq INTEGER NOT NULL, at_ms INTEGER NOT NULL, op TEXT NOT NULL, key TEXT NOT NULL,
    changed TEXT NOT NULL, prev_seq INTEGER NOT NULL, row TEXT NOT NULL, digest TEXT NOT NULL, ends INTEGER NOT NULL,
    PRIMARY KEY (stream, seq)
) WITHOUT ROWID
"""

ADOPTED = (
    "CREATE TABLE contexts (name TEXT PRIMARY KEY, columns TEXT NOT NULL)",
    """CREATE TABLE reshapes (
    id INTEGER PRIMARY KEY, stream TEXT NOT NULL, seq INTEGER NOT NULL, digest TEXT NOT NULL, fill TEXT NOT NULL,
    at_ms INTEGER NOT NULL)""",
    "CREATE INDEX idx_reshapes ON reshapes (stream)",
)
"""What version 2 brought: which columns the rows of declared contexts have, and when they gained some."""

GOES_ON = "UPDATE events SET ends = 0 WHERE stream = ? AND seq = ?"
"""The event that ended what was written so far is not the last of its change set."""


def create(connection: sqlite3.Connection) -> None:
    """Make all tables; the caller's transaction holds them."""
    db = database(connection)
    streams = db.table("streams")
    streams.create(STREAM_COLUMNS, pk="stream", not_null=set(STREAM_COLUMNS), defaults={"floor": 0}, strict=True)
    connection.execute(EVENTS)
    for context in BUILT_IN.values():
        create_context(connection, context)
    for statement in (*ADOPTED, epochs.TABLE):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring a master of an earlier version to this one; the caller's transaction holds it."""
    if connection.execute("PRAGMA user_version").fetchone()[0] == 1:
        for statement in ADOPTED:
            connection.execute(statement)
    connection.execute(epochs.TABLE)
    epochs.note(connection, connection.execute("SELECT stream, epoch FROM streams").fetchall())
    connection.execute(f"PRAGMA user_version = {VERSION}")


def create_context(connection: sqlite3.Connection, context: Context) -> None:
    """Make the table of one context; the caller's transaction holds it."""
    kinds: dict[str, type] = {"scope": str}
    kinds |= {column.name: int if column.is_integer else str for column in (*context.keys, *context.values)}
    kinds |= {"seq": int, "deleted": int}
    table = database(connection).table(f"master_{context.name}")
    table.create(
        kinds,
        pk=("scope", *context.key_names),
        not_null={"scope", *context.key_names, "seq", "deleted"},
        defaults={"deleted": 0},
        strict=True,
    )
    table.create_index(["scope", "seq"], unique=True)
    connection.execute(tombstones(context).index)


def add_column(connection: sqlite3.Connection, context: Context, column: Column) -> None:
    """Give the table of a context one more column."""
    connection.execute(f"ALTER TABLE [master_{context.name}] ADD COLUMN [{column.name}] {kind_of(column)}")


def kind_of(column: Column) -> str:
    return "INTEGER" if column.is_integer else "TEXT"


EVENT_COLUMNS = ("stream", "seq", "at_ms", "op", "key", "changed", "prev_seq", "row", "digest", "ends")


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
    )


@dataclass(frozen=True, slots=True)
class TombstoneStatements:
    """The SQL of one context's tombstones. A partial index finds them; older masters get it when it is first needed."""

    index: str
    is_indexed: str
    oldest: str
    remove: str


@lru_cache
def tombstones(context: Context) -> TombstoneStatements:
    table, index = f"master_{context.name}", f"idx_master_{context.name}_tombstones"
    return TombstoneStatements(
        index=f"CREATE INDEX IF NOT EXISTS [{index}] ON [{table}] (scope, seq) WHERE deleted = 1",
        is_indexed=f"SELECT 1 FROM sqlite_master WHERE name = '{index}'",
        oldest=(
            f"SELECT m.seq, e.at_ms FROM [{table}] AS m INDEXED BY [{index}]"
            " JOIN events AS e ON e.stream = ? AND e.seq = m.seq"
            " WHERE m.scope = ? AND m.deleted = 1 ORDER BY m.seq LIMIT ?"
        ),
        remove=f"DELETE FROM [{table}] WHERE scope = ? AND deleted = 1 AND seq <= ?",
    )


def stored(context: Context, row: tuple[Any, ...]) -> Stored:
    """Take `(seq, *keys, *values, deleted)` apart."""
    return Stored(row[: 1 + len(context.keys)], True) if row[-1] else Stored(row[:-1], False)
