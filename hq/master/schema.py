"""The master's tables: how they are made, and how a context's table gains a column."""

from __future__ import annotations

import sqlite3

from hq.master.rows import tombstone_index
from storelink.contract.contexts import BUILT_IN, Column, Context
from storelink.host.sqlite import database

APPLICATION_ID = 0x53744851
"""Marks an SQLite file as a master ("StHQ")."""

VERSION = 4
"""Raise it with every change of a declaration here: hq opens, copies and restores this format and no other."""

STREAM_COLUMNS: dict[str, type] = {
    "stream": str,
    "epoch": str,
    "head_seq": int,
    "digest": str,
    "rows": int,
    "floor": int,
    "updated_at_ms": int,
    "changed": int,
}
"""`changed` grows with every change of any stream, so that one look finds what changed since the last."""

EVENTS = """
CREATE TABLE events (
    stream TEXT NOT NULL, seq INTEGER NOT NULL, at_ms INTEGER NOT NULL, op TEXT NOT NULL, key TEXT NOT NULL,
    changed TEXT NOT NULL, prev_seq INTEGER NOT NULL, row TEXT NOT NULL, digest TEXT NOT NULL, ends INTEGER NOT NULL,
    PRIMARY KEY (stream, seq)
) WITHOUT ROWID
"""

CONTEXTS = (
    "CREATE TABLE contexts (name TEXT PRIMARY KEY, columns TEXT NOT NULL)",
    """CREATE TABLE reshapes (
    id INTEGER PRIMARY KEY, stream TEXT NOT NULL, seq INTEGER NOT NULL, digest TEXT NOT NULL, fill TEXT NOT NULL,
    at_ms INTEGER NOT NULL)""",
    "CREATE INDEX idx_reshapes ON reshapes (stream)",
)
"""Which columns the rows of declared contexts have, and when they gained some."""

EPOCHS = (
    "CREATE TABLE epochs (stream TEXT NOT NULL, epoch TEXT NOT NULL, PRIMARY KEY (stream, epoch)) WITHOUT ROWID",
    "CREATE INDEX idx_epochs ON epochs (epoch)",
)
"""The index finds the newest epoch of all, which the next one must follow."""


def create(connection: sqlite3.Connection) -> None:
    """Make all tables; within the caller's transaction."""
    db = database(connection)
    streams = db.table("streams")
    streams.create(STREAM_COLUMNS, pk="stream", not_null=set(STREAM_COLUMNS), defaults={"floor": 0}, strict=True)
    streams.create_index(["changed"], unique=True)
    connection.execute(EVENTS)
    for context in BUILT_IN.values():
        create_context(connection, context)
    for statement in (*CONTEXTS, *EPOCHS):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def create_context(connection: sqlite3.Connection, context: Context) -> None:
    """Make the table of one context; within the caller's transaction."""
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
    connection.execute(
        f"CREATE INDEX IF NOT EXISTS [{tombstone_index(context)}] ON [master_{context.name}] (scope, seq)"
        " WHERE deleted = 1"
    )


def add_column(connection: sqlite3.Connection, context: Context, column: Column) -> None:
    """Give the table of a context one more column."""
    connection.execute(f"ALTER TABLE [master_{context.name}] ADD COLUMN [{column.name}] {kind_of(column)}")


def kind_of(column: Column) -> str:
    return "INTEGER" if column.is_integer else "TEXT"
