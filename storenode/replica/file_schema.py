"""What a replica's file must be made of: what a new one is, and the tables of the contexts that the file records.

The record is data from the file. Only names that a declaration may have are taken from it, and everything else is
made by the code that makes the tables of a declared context: so whatever the record says, what is expected is ours.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from storelink.contract.contexts import Column, Context
from storelink.contract.declared import is_name, is_table_name
from storelink.host.schema_check import FileSchema, Objects, differences, header_in, made, objects_of, shown, untrusted
from storenode.replica import contexts as declared
from storenode.replica import schema

_RECORD = "table contexts names a context or columns that no declaration can have"


def schema_differences(path: Path) -> list[str]:
    """
    Say what of an untrusted copy is not as this version makes it; nothing in it is executed.

    Raises:
        OSError: it cannot be read.
        sqlite3.DatabaseError: SQLite cannot read its schema.
    """
    header = header_in(path)
    expected = _expected([])
    said = differences(FileSchema(header, expected.objects), expected)
    if said:
        return said
    with untrusted(path) as db:
        objects = objects_of(db)
        record = ("table", "contexts")
        if objects.get(record) != expected.objects[record]:  # not to be asked, then
            return differences(FileSchema(header, objects), expected)
        try:
            expected = _expected(_recorded(db, {name for kind, name in objects if kind == "table"}))
        except (ValueError, TypeError, RecursionError, sqlite3.DatabaseError):
            return [_RECORD, *differences(FileSchema(header, objects), expected)]
        said = differences(FileSchema(header, objects), expected)
        return said or _shapes(db) or _settings_of_search(db, objects)


def foreign_triggers(db: sqlite3.Connection) -> list[str]:
    """The triggers of a replica in use that this version has not made; what else others add runs in nobody's writes."""
    objects = objects_of(db)
    there = {key: declared for key, declared in objects.items() if key[0] == "trigger"}
    ours: Objects = {}
    if there:
        with suppress(ValueError, TypeError, RecursionError, sqlite3.DatabaseError):
            ours = _expected(_recorded(db, {name for kind, name in objects if kind == "table"})).objects
    return [shown(key[1]) for key, declared in there.items() if ours.get(key) != declared]


def _expected(contexts: list[tuple[Context, tuple[Column, ...]]]) -> FileSchema:
    """A new replica with these contexts, each with the columns that it gained after its table was made."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        schema.create(db)
        for statement in declared.TABLES:
            db.execute(statement)
        for context, gained in contexts:
            declared.make(db, context)
            for column in gained:
                declared.add_column(db, context.table, column)
            declared.index_words(db, context)
        return made(db)


def _recorded(db: sqlite3.Connection, tables: set[str]) -> list[tuple[Context, tuple[Column, ...]]]:
    """The contexts that the file records, with the columns that their tables have. Raises ValueError, TypeError."""
    found = []
    for name, table, search in db.execute("SELECT name, table_name, search FROM contexts"):
        if table is None:
            continue
        if not is_name(name) or not is_table_name(table) or table not in tables:
            raise ValueError(shown(str(name)))
        words = _names(search)
        columns = _columns(db, table)
        seq = next(place for place, column in enumerate(columns) if column[0] == "seq")
        keys = [column for _, column in sorted((c[2], c[0]) for c in columns if c[2]) if column != "scope"]
        values = [Column(c[0], "integer" if c[1] == "INTEGER" else "text") for c in columns if not c[2]]
        first = {c[0] for c in columns[:seq]}
        context = Context(
            name,
            table,
            tuple(Column(key) for key in keys),
            tuple(value for value in values if value.name in first),
            words,
        )
        found.append((context, tuple(v for v in values if v.name not in {*first, "seq"})))
    return found


def _columns(db: sqlite3.Connection, table: str) -> list[tuple[str, str, int]]:
    """Name, type and place in the key of each column; `table_info` would connect a virtual table, so not of one."""
    (sql,) = db.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone()
    columns = db.execute("SELECT name, type, pk FROM pragma_table_info(?)", (table,)).fetchall()
    if not str(sql).upper().startswith("CREATE TABLE") or not all(is_name(name) for name, *_ in columns):
        raise ValueError(table)
    if "seq" not in {name for name, *_ in columns}:
        raise ValueError(table)
    return [(str(name), str(kind), int(pk)) for name, kind, pk in columns]


def _shapes(db: sqlite3.Connection) -> list[str]:
    """The columns that `contexts` and `shapes` name are put into statements: each must be a column's name."""
    texts = db.execute("SELECT columns FROM contexts WHERE table_name IS NOT NULL UNION ALL SELECT columns FROM shapes")
    try:
        for (text,) in texts:
            _names(text)
    except (ValueError, TypeError, RecursionError):
        return [_RECORD]
    return []


def _settings_of_search(db: sqlite3.Connection, objects: Objects) -> list[str]:
    """An index of words may be told how to rank, which is SQL of its own; ours are told nothing."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        schema.create(fresh)
        untold = fresh.execute("SELECT k, v FROM product_search_config").fetchall()
    names = [name for (_, name), (_, words) in objects.items() if words[1:2] == ("VIRTUAL",)]
    told = [name for name in names if db.execute(f'SELECT k, v FROM "{name}_config"').fetchall() != untold]
    return [f"table {name}_config is not as it was made" for name in told]


def _names(text: Any) -> tuple[str, ...]:
    found = json.loads(text)
    if not isinstance(found, list) or not all(is_name(name) for name in found):
        raise ValueError("no names of columns")
    return tuple(found)
