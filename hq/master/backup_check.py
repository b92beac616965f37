"""Whether a file is a copy of a master that this version made: its schema, then its pages, then its values.

The file may come from anywhere. Nothing in it runs: its schema is compared with that of a master made fresh, with the
tables of the contexts that the file records, before any statement touches a table. Of the record only names and kinds
are taken that a declaration may have. Rows, log and digests are proven afterwards, by `hq.master.audit`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import msgspec

from hq.errors import BackupRefused, MasterDamaged
from hq.master import schema
from hq.master.connection import not_a_master, on_disk
from storelink.contract.contexts import BUILT_IN, Column, Context, Kind
from storelink.contract.declared import KINDS, is_name
from storelink.host.schema_check import (
    FileSchema,
    differences,
    header_in,
    listed,
    made,
    misfit,
    objects_of,
    shown,
    untrusted,
)

HINT = "restore a file that this version's hq backup made"
_RECORD = "table contexts names a context or columns that no declaration can have"
_decode_record = msgspec.json.Decoder(list[tuple[str, str]]).decode

_Recorded = list[tuple[Context, Sequence[Column]]]


def check_file(path: Path, name: Path) -> None:
    """
    Check that a copy, which nobody else uses, is made as a master's file is.

    Args:
        name: the file's name for people, if `path` is a copy of it.

    Raises:
        BackupRefused: of another version, with another schema, or with values or rows that no master holds.
        MasterDamaged: no master, or a damaged one.
    """
    with on_disk(name):
        header = header_in(path)
        if header["application_id"] != schema.APPLICATION_ID:
            raise not_a_master(name)
        if header["user_version"] != schema.VERSION:
            raise BackupRefused(
                f"{name} has format {header['user_version']}, this hq copies and restores format {schema.VERSION}",
                hint="use the hq that wrote it",
            )
        with untrusted(path) as db:
            try:
                said = _differences(db, header)
            except sqlite3.DatabaseError as error:
                raise MasterDamaged(f"SQLite cannot read the schema of {name}: {error}", hint=HINT) from error
            if said:
                raise BackupRefused(
                    f"{name} is not made as this hq makes a master: {listed(said)}", hint=HINT, differences=said
                )
            (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok":
                raise MasterDamaged(f"{name} is damaged: {found}", hint="take another copy")
            problem = misfit(db, objects_of(db)) or _orphans(db)
            if problem:
                raise BackupRefused(f"{name} holds what no master holds: {problem}", hint=HINT)


def _differences(db: sqlite3.Connection, header: dict[str, int]) -> list[str]:
    found, expected = FileSchema(header, objects_of(db)), _expected([])
    record = ("table", "contexts")
    if found.header != expected.header or found.objects.get(record) != expected.objects[record]:
        return differences(found, expected)
    try:
        return differences(found, _expected(_recorded(db, found)))
    except (ValueError, TypeError, RecursionError, sqlite3.DatabaseError):
        return [_RECORD, *differences(found, expected)]


def _expected(contexts: _Recorded) -> FileSchema:
    """A new master with these contexts, each with the columns that it gained after its table was made."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        schema.create(db)
        for context, gained in contexts:
            schema.create_context(db, context)
            for column in gained:
                schema.add_column(db, context, column)
        return made(db)


def _recorded(db: sqlite3.Connection, found: FileSchema) -> _Recorded:
    """The contexts that the file records. Raises ValueError, TypeError."""
    contexts: _Recorded = []
    for name, record in db.execute("SELECT name, columns FROM contexts ORDER BY rowid"):
        declared = found.objects.get(("table", f"master_{name}"))
        if not is_name(name) or declared is None or declared[1][1:2] != ("TABLE",):
            raise ValueError(shown(str(name)))
        columns = [_column(*each) for each in _decode_record(record)]
        there = [column for (column,) in db.execute("SELECT name FROM pragma_table_info(?)", (f"master_{name}",))]
        first = there[: there.index("deleted")]
        values = [column for column, is_key in columns if not is_key]
        context = Context(
            name,
            name,
            tuple(column for column, is_key in columns if is_key),
            tuple(column for column in values if column.name in first),
        )
        contexts.append((context, [column for column in values if column.name not in first]))
    return contexts


def _column(name: str, kind: str) -> tuple[Column, bool]:
    """One column of a record, `[name, kind]`, and whether it is a key: `storelink.contract.contexts.record_of`."""
    bare = kind.removeprefix("key:").partition(":")[0]
    if not is_name(name) or bare not in KINDS:
        raise ValueError(shown(name))
    return Column(name, cast(Kind, bare)), kind.startswith("key:")


def _orphans(db: sqlite3.Connection) -> str | None:
    """Rows and events that belong to no stream, which no proof would look at."""
    streams: set[Any] = {name for (name,) in db.execute("SELECT stream FROM streams")}
    names = [*BUILT_IN] + [name for (name,) in db.execute("SELECT name FROM contexts")]
    for name in names:
        for (scope,) in db.execute(f"SELECT DISTINCT scope FROM [master_{name}]"):
            if f"{name}/{scope}" not in streams:
                return f"table master_{name} has rows of the scope {shown(scope)}, which is no stream's"
    if db.execute("SELECT 1 FROM events WHERE NOT (json_valid(key) AND json_valid(changed)) LIMIT 1").fetchone():
        return "table events has a key, or names of what changed, that are no JSON"
    for (stream,) in db.execute("SELECT DISTINCT stream FROM events"):
        if stream not in streams:
            return f"table events has events of {shown(stream)}, which is no stream"
    return None
