"""Proving the replica: what the file is made of, SQLite's own check of its pages, and each stream's digest.

Runs in the background, on read-only connections; the results become commands to the writer, which heals: a damaged
file is moved away, a stream whose rows are not HQ's is fetched anew.

A file that may come from anywhere (a backup) is compared with what this version makes before anything in it runs. What
it records of declared contexts is data from the file. Only names that a declaration may have are taken from it, and
everything else is made by the code that makes the tables of a declared context: so whatever the record says, what is
expected is ours.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from storelink.contract.contexts import Column, Context
from storelink.contract.declared import is_name, is_table_name
from storelink.contract.rows import EMPTY, hash_of, to_hex, total
from storelink.contract.streams import Stream
from storelink.host.logs import get_logger
from storelink.host.schema_check import FileSchema, Objects, differences, header_in, made, objects_of, shown, untrusted
from storenode.errors import ReplicaDamaged, StorenodeError
from storenode.replica import contexts as declared
from storenode.replica import schema
from storenode.replica.file import REPLACED_HINT, reading

log = get_logger()

_BAD_RECORD = "table contexts names a context or columns that no declaration can have"


@dataclass(frozen=True, slots=True)
class Scan:
    """One stream's content as it is (`digest`, `rows`) and as HQ announced it at `position`.

    `epoch` None: HQ has announced nothing yet, so there is nothing to compare with.
    """

    stream: Stream
    epoch: str | None
    position: int
    digest: str
    announced: str
    rows: int

    @property
    def ok(self) -> bool:
        return self.digest == self.announced


@dataclass(frozen=True, slots=True)
class Verified:
    """A scan's result; `life`: how often the stream had been rebuilt when the scan began."""

    stream: Stream
    ok: bool
    life: int


@dataclass(frozen=True, slots=True)
class Damaged:
    """The file itself is not sound."""

    error: ReplicaDamaged


Result = Verified | Damaged


def prove(db: Path, lives: Mapping[Stream, int], submit: Callable[[Result], None]) -> StorenodeError | None:
    """Check the file, then scan every stream; returns what kept it from its end, which is tried the next time."""
    try:
        check_file(db)
        for stream, life in lives.items():
            found = scan(db, stream)
            (log.info if found.ok else log.error)("replica.scanned", stream=str(stream), ok=found.ok, rows=found.rows)
            if found.epoch is not None:
                submit(Verified(stream, found.ok, life))
    except ReplicaDamaged as error:
        submit(Damaged(error))
        return error
    except StorenodeError as error:
        return error
    return None


def check_file(path: Path) -> None:
    """Have SQLite check the whole file, indexes included, and compare its tables and views. Raises ReplicaDamaged.

    A scan reads tables; a till looks things up in indexes and by views, which may be wrong where no row is.
    """
    with reading(path) as db:
        (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        is_this_version = db.execute("PRAGMA user_version").fetchone()[0] == schema.VERSION
        there = _shape(db) if is_this_version else _expected_shape()
        triggers = _foreign_triggers(db)
    other = [name for name, made in _expected_shape().items() if there.get(name) != made]
    if found == "ok" and other:
        found = f"{other[0]} is not as it was made"
    if found == "ok" and triggers:
        found = f"trigger {triggers[0]} is not ours: it would run in the daemon's own transactions"
    if found != "ok":
        raise ReplicaDamaged(f"{path} is not a sound replica: {found}", hint=REPLACED_HINT)


def scan(path: Path, stream: Stream) -> Scan:
    """Hash every row of a stream and put the sum beside what HQ announced; 450,000 rows a second."""
    with reading(path) as db:
        epoch, position, announced = db.execute(
            "SELECT epoch, position, digest FROM streams WHERE stream = ?1 UNION ALL"
            " SELECT epoch, position, digest FROM unfollowed_streams WHERE stream = ?1",
            (str(stream),),
        ).fetchone() or (None, 0, EMPTY)
        held = {
            tuple(json.loads(key)): row
            for key, row in db.execute("SELECT key, row FROM quarantine WHERE stream = ?", (str(stream),))
        }
        count, sql = 0, scan_sql(stream.context, declared.columns_there(db, stream))

        def rows() -> Iterator[Any]:
            nonlocal count
            for row in db.execute(sql, (stream.scope,)):
                count += 1
                if not held or stream.context.key_of(row) not in held:
                    yield row

        found = to_hex(total(rows()) + sum(hash_of(row.encode()) for row in held.values()))
    return Scan(stream, epoch, position, found, announced, count)


@lru_cache
def scan_sql(context: Context, columns: tuple[str, ...]) -> str:
    """The wire rows of one scope, as far as they have these columns."""
    return f"SELECT {', '.join(columns)} FROM {context.table} WHERE scope = ?"


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
            return [_BAD_RECORD, *differences(FileSchema(header, objects), expected)]
        said = differences(FileSchema(header, objects), expected)
        return said or _shapes(db) or _settings_of_search(db, objects)


def _foreign_triggers(db: sqlite3.Connection) -> list[str]:
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
        return [_BAD_RECORD]
    return []


def _settings_of_search(db: sqlite3.Connection, objects: Objects) -> list[str]:
    """An index of words may be configured how to rank, which is SQL of its own; ours are not configured at all."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        schema.create(fresh)
        as_made = fresh.execute("SELECT k, v FROM product_search_config").fetchall()
    names = [name for (_, name), (_, words) in objects.items() if words[1:2] == ("VIRTUAL",)]
    changed = [name for name in names if db.execute(f'SELECT k, v FROM "{name}_config"').fetchall() != as_made]
    return [f"table {name}_config is not as it was made" for name in changed]


def _names(text: Any) -> tuple[str, ...]:
    found = json.loads(text)
    if not isinstance(found, list) or not all(is_name(name) for name in found):
        raise ValueError("no names of columns")
    return tuple(found)


def _shape(connection: sqlite3.Connection) -> dict[str, object]:
    """What a file is made of, by name: a table's columns, whatever their order, and the text of the rest."""
    found: dict[str, object] = {}
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall():
        if kind == "table" and not str(sql).startswith("CREATE VIRTUAL"):
            columns = connection.execute(
                'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info(?)', (name,)
            )
            found[name] = frozenset(columns)
        else:
            found[name] = sql
    return found


@lru_cache
def _expected_shape() -> dict[str, object]:
    """The shape of a new replica."""
    with closing(sqlite3.connect(":memory:")) as db:
        schema.create(db)
        return _shape(db)
