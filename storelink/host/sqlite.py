"""SQLite files as both sides use them: opening, transactions, many rows at once, schemas, and what an error means."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlite_utils import Database

ROWS_PER_STATEMENT = 32
"""Rows that one INSERT writes: a quarter faster than a statement each."""

_NOT_TEXT = "Could not decode to UTF-8"
"""How Python's module begins to say that a stored text is none; it gives no code."""


class Trouble(Enum):
    """What an error of SQLite means for its file."""

    DAMAGED = "damaged"
    NO_DATABASE = "no database"
    MISFIT = "misfit"
    """A statement of ours does not fit the tables: they are not those that we made."""

    BUSY = "busy"
    FULL = "full"
    READ_ONLY = "read-only"
    CANNOT_OPEN = "cannot open"
    """Missing, or this user may not open it."""

    OTHER = "other"


_BY_CODE = {
    sqlite3.SQLITE_CORRUPT: Trouble.DAMAGED,
    sqlite3.SQLITE_NOTADB: Trouble.NO_DATABASE,
    sqlite3.SQLITE_ERROR: Trouble.MISFIT,
    sqlite3.SQLITE_BUSY: Trouble.BUSY,
    sqlite3.SQLITE_LOCKED: Trouble.BUSY,
    sqlite3.SQLITE_FULL: Trouble.FULL,
    sqlite3.SQLITE_READONLY: Trouble.READ_ONLY,
    sqlite3.SQLITE_PERM: Trouble.READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: Trouble.CANNOT_OPEN,
}


def trouble_of(error: sqlite3.Error) -> Trouble:
    """Classify an error; the callers put it into words of their own."""
    if str(error).startswith(_NOT_TEXT):
        return Trouble.DAMAGED
    return _BY_CODE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, Trouble.OTHER)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is not sound, or no database at all."""
    return trouble_of(error) in (Trouble.DAMAGED, Trouble.NO_DATABASE)


def open_file(path: Path, mode: str, timeout_s: float) -> sqlite3.Connection:
    """
    Open a database file; transactions begin only where `BEGIN` says so.

    Args:
        mode: SQLite's words: `ro`; `rw`, the file must exist; `rwc`, it is made; `ro&immutable=1`, nobody writes it.
        timeout_s: how long a statement waits for another connection's lock.
    """
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout_s)


def open_readonly(path: Path, timeout_s: float) -> sqlite3.Connection:
    """Open an existing file that this connection cannot change."""
    return open_file(path, "ro", timeout_s)


@contextmanager
def transaction(db: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """All that is done inside, or nothing; `kind` is SQLite's word. Raises what SQLite raises."""
    db.execute(f"BEGIN {kind}")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def insert(
    db: sqlite3.Connection, table: str, columns: Sequence[str], rows: Iterable[tuple[Any, ...]], then: str = ""
) -> None:
    """Insert rows, ROWS_PER_STATEMENT at once; `then`: an ON CONFLICT clause."""
    one = f"({', '.join('?' * len(columns))})"
    head = f"INSERT INTO {table} ({', '.join(columns)}) VALUES "
    waiting, rest = iter(rows), list[tuple[Any, ...]]()

    def groups() -> Iterator[tuple[Any, ...]]:
        while len(group := list(islice(waiting, ROWS_PER_STATEMENT))) == ROWS_PER_STATEMENT:
            yield tuple(chain.from_iterable(group))
        rest.extend(group)

    db.executemany(head + ", ".join([one] * ROWS_PER_STATEMENT) + then, groups())
    db.executemany(head + one + then, rest)


def database(connection: sqlite3.Connection) -> Database:
    """The connection's schema, to be read and changed; plugins of other installed packages have no part in it."""
    from sqlite_utils import Database  # only where tables are made: it would double the start of a reader

    return Database(connection, execute_plugins=False)
