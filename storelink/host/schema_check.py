"""Whether an untrusted SQLite file is made of what our own code makes, and of nothing else.

A schema is code: a trigger, a view, a generated column, an expression in an index, a CHECK or a DEFAULT runs when
somebody uses the file. So a file that came from elsewhere is compared with one made fresh, in memory, before any
statement touches its tables: the header's fields, then each line of `sqlite_schema`. Reading that parses the
declarations and executes none of them.

What may differ is how a declaration is written: white space, and which quotes are around a name (versions of
sqlite-utils and SQLite differ in these).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HEADER_BYTES = 100
SHOWN_MAX = 5
NAME_CHARS_SHOWN_MAX = 60

_FIELDS = {
    "page size": (16, 18),
    "write version": (18, 19),
    "read version": (19, 20),
    "reserved bytes": (20, 21),
    "schema format": (44, 48),
    "cache size": (48, 52),
    "largest root page": (52, 56),
    "text encoding": (56, 60),
    "user_version": (60, 64),
    "incremental vacuum": (64, 68),
    "application_id": (68, 72),
}
"""Where SQLite's header has what a file is like as a whole (sqlite.org/fileformat.html), big-endian."""

_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<text>'(?:[^']|'')*')|"(?P<name>(?:[^"]|"")*)"|\[(?P<bracketed>[^\]]*)\]"""
    r"""|`(?P<ticked>[^`]*)`|\w+|.""",
    re.DOTALL,
)

Objects = Mapping[tuple[str, str], tuple[str, tuple[str, ...]]]
"""By type and name: the table it belongs to, and its declaration in tokens; empty for an index that SQLite makes."""


@dataclass(frozen=True, slots=True)
class FileSchema:
    """What a file is made of: the fields of its header, and its tables, indexes, views and triggers."""

    header: Mapping[str, int]
    objects: Objects


def header_of(head: bytes) -> dict[str, int]:
    """The fields of a header by name. `head`: the file's first bytes, HEADER_BYTES or fewer."""
    return {name: int.from_bytes(head[start:stop], "big") for name, (start, stop) in _FIELDS.items()}


def header_in(path: Path) -> dict[str, int]:
    """As `header_of`, of a file; it need not be a database. Raises OSError."""
    with path.open("rb") as file:
        return header_of(file.read(HEADER_BYTES))


def made(connection: sqlite3.Connection) -> FileSchema:
    """The schema of a database in memory, which our own code has just made."""
    return FileSchema(header_of(connection.serialize()[:HEADER_BYTES]), objects_of(connection))


@contextmanager
def untrusted(path: Path) -> Iterator[sqlite3.Connection]:
    """
    Open a copy that nobody else uses, read-only, to look at its schema. Raises what SQLite raises.

    `immutable`: no log and no journal beside it is played back.
    """
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        yield connection
    finally:
        connection.close()


def objects_of(connection: sqlite3.Connection) -> Objects:
    """What `sqlite_schema` lists. Raises what SQLite raises, as for a declaration that is no SQL."""
    found: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {}
    for kind, name, table, sql in connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"):
        key = (str(kind), str(name))
        twice = ("listed twice",) if key in found else ()
        found[key] = (str(table), twice + tokens(str(sql or "")))
    return found


def tokens(sql: str) -> tuple[str, ...]:
    """A declaration without white space, each quoted name in double quotes; comments stay, ours have none."""
    found = []
    for match in _TOKEN.finditer(sql):
        if match["space"] is not None:
            continue
        name = next((match[group] for group in ("name", "bracketed", "ticked") if match[group] is not None), None)
        found.append(match[0] if name is None else f'"{name}"')
    return tuple(found)


def differences(found: FileSchema, expected: FileSchema) -> list[str]:
    """Say what of a file is not as expected, each in a few words for a person; empty if nothing is."""
    said = [
        f"{name} is {value}, not {expected.header[name]}"
        for name, value in found.header.items()
        if value != expected.header[name]
    ]
    for kind, name in sorted({*found.objects, *expected.objects}):
        there, ours = found.objects.get((kind, name)), expected.objects.get((kind, name))
        what = f"{shown(kind)} {shown(name)}"
        if ours is None:
            said.append(f"{what} is not ours")
        elif there is None:
            said.append(f"{what} is missing")
        elif there != ours:
            said.append(f"{what} is declared otherwise")
    return said


def misfit(connection: sqlite3.Connection, objects: Objects) -> str | None:
    """
    Say which column holds a value that is not of its declared kind: a BLOB or a number as text, a key without a value.

    Args:
        objects: of this very file, compared before; virtual tables are passed over, and columns of no such kind.
    """
    nullable = {"TEXT": "'text', 'null'", "INTEGER": "'integer', 'null'"}
    in_key = {"TEXT": "'text'", "INTEGER": "'integer'"}
    for (kind, name), (_, declared) in objects.items():
        if kind != "table" or declared[1:2] != ("TABLE",):
            continue
        columns = connection.execute("SELECT name, type, pk FROM pragma_table_info(?)", (name,)).fetchall()
        tests = {
            column: f'typeof("{column}") NOT IN ({(in_key if pk else nullable)[kind]})'
            for column, kind, pk in columns
            if kind in nullable
        }
        answers = ", ".join(f"coalesce(max({test}), 0)" for test in tests.values())
        found = connection.execute(f'SELECT {answers} FROM "{name}"').fetchone() if tests else ()
        wrong = [column for column, is_wrong in zip(tests, found, strict=True) if is_wrong]
        if wrong:
            return f"table {name}, column {wrong[0]} holds a value of another type"
    return None


def listed(said: Sequence[str]) -> str:
    """Join what differs into one line that stays short."""
    more = f"; and {len(said) - SHOWN_MAX} more" if len(said) > SHOWN_MAX else ""
    return "; ".join(said[:SHOWN_MAX]) + more


def shown(name: str) -> str:
    """A name from the file, for a terminal: printable, on one line, not long."""
    return repr(name)[1:-1][:NAME_CHARS_SHOWN_MAX]
