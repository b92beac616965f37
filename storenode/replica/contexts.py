"""Declared contexts in the replica: their tables, further columns, an index of words; and what does not fit.

The declaration here may be behind HQ's or ahead of it, and may be missing: nothing of that stops another stream, and
rows that are there stay readable. `contexts` says of each declared context which columns its table has, and what is
wrong with it. `shapes` names the streams whose rows are from before a column was added, with the columns that they
have; such a stream is fetched anew. This module is the one writer of both.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from storelink.contract.contexts import Column, Context, Contexts
from storelink.contract.streams import Stream
from storelink.host.sqlite import database
from storenode.core.scopes import undeclared
from storenode.core.states import COLUMNS
from storenode.errors import NotFound
from storenode.replica.streams import begun_streams, has_rows, have_rebuilt, suspend

TABLES = (
    """CREATE TABLE IF NOT EXISTS contexts
    (name TEXT PRIMARY KEY, table_name TEXT, columns TEXT, search TEXT, rules TEXT, problem TEXT)""",
    "CREATE TABLE IF NOT EXISTS shapes (stream TEXT PRIMARY KEY, columns TEXT NOT NULL)",
)

RESTART = "the daemon reads the file of contexts when it starts: systemctl restart storenode"

FORGOTTEN = "is not declared here any more: its rows stay as they were; put it back into the file of contexts"


def adopt(db: sqlite3.Connection, scopes: Sequence[str], contexts: Contexts) -> Mapping[str, str]:
    """
    Bring the tables to the declarations; within a transaction.

    Args:
        scopes: as configured; what they name and nobody declares is said.

    Returns:
        The contexts that cannot be followed, each with the reason.
    """
    for statement in TABLES:
        db.execute(statement)
    db.execute("DELETE FROM contexts WHERE table_name IS NULL")
    db.execute("UPDATE contexts SET problem = NULL")
    found = db.execute("SELECT name, table_name, columns, search, rules FROM contexts")
    recorded = {name: rest for name, *rest in found}
    problems = {name: FORGOTTEN for name in recorded if name not in contexts}
    for context in contexts.declared:
        problem = _adopt(db, context, recorded.get(context.name))
        if problem is not None:
            problems[context.name] = problem
    problems = {**undeclared(scopes, contexts), **problems}
    note_problems(db, problems)
    suspend(db, problems)
    return problems


def note_problems(db: sqlite3.Connection, problems: Mapping[str, str | None]) -> None:
    """Write down what is wrong with contexts; None: nothing is any more."""
    db.executemany(
        "INSERT INTO contexts(name, problem) VALUES(?, ?) ON CONFLICT (name) DO UPDATE SET problem = excluded.problem",
        list(problems.items()),
    )


def problems_of(db: sqlite3.Connection) -> dict[str, str]:
    """What is wrong with contexts, by name."""
    return dict(db.execute("SELECT name, problem FROM contexts WHERE problem IS NOT NULL ORDER BY name"))


def columns_of(db: sqlite3.Connection, context: Context) -> tuple[str, ...]:
    """The columns that a context's table has, which may be others than those declared since the daemon started."""
    if context.is_built_in:
        return context.columns
    found = db.execute("SELECT columns FROM contexts WHERE name = ?", (context.name,)).fetchone()
    if found is None or found[0] is None:
        raise NotFound(f"this replica has no {context.name} yet", hint=RESTART)
    return tuple(json.loads(found[0]))


def columns_there(db: sqlite3.Connection, stream: Stream) -> tuple[str, ...]:
    """The columns that a stream's rows have: fewer than the table has, while the stream waits to be fetched anew."""
    context = stream.context
    if not context.is_built_in:
        found = db.execute("SELECT columns FROM shapes WHERE stream = ?", (str(stream),)).fetchone()
        if found is not None:
            return tuple(json.loads(found[0]))
    return columns_of(db, context)


def forget_shape(db: sqlite3.Connection, stream: Stream) -> None:
    """A stream's rows are about to be replaced, or have gone: what comes has the table's columns."""
    db.execute("DELETE FROM shapes WHERE stream = ?", (str(stream),))


def _adopt(db: sqlite3.Connection, context: Context, recorded: list[Any] | None) -> str | None:
    """Make or adapt one context's table; returns why not."""
    if recorded is None:
        if _is_taken(db, context.table) or (context.search and _is_taken(db, _index(context.table))):
            return f"this replica has a table {context.table} of its own: declare another name with table = ..."
        make(db, context)
    else:
        table, columns, search, rules = recorded
        if table != context.table:
            if _is_taken(db, context.table):
                return f"this replica has a table {context.table} of its own: declare another name with table = ..."
            _drop_search(db, table)
            db.execute(f"ALTER TABLE {table} RENAME TO {context.table}")
        if not _fits(db, context):
            if has_rows(db, context.name):
                return (
                    "keys or kinds are declared otherwise than the replica's rows have them: put the declaration right,"
                    " or move the replica away to have all of it fetched anew"
                )
            _drop_search(db, context.table)
            db.execute(f"DROP TABLE {context.table}")
            make(db, context)
        elif tuple(json.loads(columns)) != context.columns:
            _adapt(db, context, columns)
        elif rules != _rules(context):
            _release(db, context)
        if search != json.dumps(context.search) or table != context.table:
            _drop_search(db, context.table)
    index_words(db, context)
    db.execute(
        "INSERT OR REPLACE INTO contexts(name, table_name, columns, search, rules) VALUES(?, ?, ?, ?, ?)",
        (context.name, context.table, json.dumps(context.columns), json.dumps(context.search), _rules(context)),
    )
    return None


def make(db: sqlite3.Connection, context: Context) -> None:
    """Make the table of a context."""
    kinds: dict[str, type] = {"scope": str}
    kinds |= {column.name: int if column.is_integer else str for column in (*context.keys, *context.values)}
    database(db).table(context.table).create(
        kinds | {"seq": int},
        pk=(*context.key_names, "scope"),
        not_null={"scope", *context.key_names, "seq"},
    )


def add_column(db: sqlite3.Connection, table: str, column: Column) -> None:
    """Give a context's table one more column."""
    db.execute(f"ALTER TABLE {table} ADD COLUMN {column.name} {'INTEGER' if column.is_integer else 'TEXT'}")


def _fits(db: sqlite3.Connection, context: Context) -> bool:
    """Whether the table's rows can be those of the context, but for columns that it lacks."""
    there = {name: (kind, place) for _, name, kind, _, _, place in db.execute(f"PRAGMA table_info({context.table})")}
    keys = sorted((place, name) for name, (_, place) in there.items() if place)
    shared = [column for column in context.values if column.name in there]
    return [name for _, name in keys] == [*context.key_names, "scope"] and all(
        there[column.name] == ("INTEGER" if column.is_integer else "TEXT", 0) for column in shared
    )


def _adapt(db: sqlite3.Connection, context: Context, columns: str) -> None:
    """Give the table what it lacks; its streams will be fetched anew, and serve as they are until then."""
    there = {row[1] for row in db.execute(f"PRAGMA table_info({context.table})")}
    for column in context.values:
        if column.name not in there:
            add_column(db, context.table, column)
    names = begun_streams(db, context.name)
    # Where an earlier change still waits, the rows have the columns from before that one.
    db.executemany("INSERT OR IGNORE INTO shapes(stream, columns) VALUES(?, ?)", [(name, columns) for name in names])
    have_rebuilt(db, names, COLUMNS)


def _release(db: sqlite3.Connection, context: Context) -> None:
    """Rules have changed: what is held because of the old ones is fetched anew, with its stream."""
    held = {name for (name,) in db.execute("SELECT DISTINCT stream FROM quarantine")}
    have_rebuilt(db, [name for name in begun_streams(db, context.name) if name in held], COLUMNS)


def _rules(context: Context) -> str:
    """What a value must be like, in a form to compare."""
    return repr((context.keys, context.values))


def index_words(db: sqlite3.Connection, context: Context) -> None:
    """
    Make the index of words, or prove the one that there is and build it anew if it drifted.

    It is fed row by row in the rows' own transaction: a quarter of the speed, and never behind them. What chains
    declare is small beside products, whose index is fed in sets behind the rows.
    """
    if not context.search:
        return
    table, index, names = context.table, _index(context.table), ", ".join(context.search)
    if _is_taken(db, index):
        try:
            db.execute(f"INSERT INTO {index}({index}, rank) VALUES('integrity-check', 1)")
        except sqlite3.DatabaseError:
            db.execute(f"INSERT INTO {index}({index}) VALUES('rebuild')")
        return
    db.execute(
        f"CREATE VIRTUAL TABLE {index} USING fts5(scope UNINDEXED, {names}, content='{table}',"
        ' tokenize="unicode61 remove_diacritics 2")'
    )
    old, new = (", ".join(f"{side}.{name}" for name in ("scope", *context.search)) for side in ("old", "new"))
    leave = f"INSERT INTO {index}({index}, rowid, scope, {names}) VALUES('delete', old.rowid, {old});"
    enter = f"INSERT INTO {index}(rowid, scope, {names}) VALUES(new.rowid, {new});"
    changed = " OR ".join(f"old.{name} IS NOT new.{name}" for name in context.search)
    for event, body in (
        ("INSERT", f"BEGIN {enter} END"),
        ("DELETE", f"BEGIN {leave} END"),
        ("UPDATE", f"WHEN {changed} BEGIN {leave} {enter} END"),
    ):
        db.execute(f"CREATE TRIGGER {index}_{event.lower()} AFTER {event} ON {table} {body}")
    db.execute(f"INSERT INTO {index}({index}) VALUES('rebuild')")


def _drop_search(db: sqlite3.Connection, table: str) -> None:
    for event in ("insert", "delete", "update"):
        db.execute(f"DROP TRIGGER IF EXISTS {_index(table)}_{event}")
    db.execute(f"DROP TABLE IF EXISTS {_index(table)}")


def _index(table: str) -> str:
    return f"{table}_search"


def _is_taken(db: sqlite3.Connection, name: str) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is not None
