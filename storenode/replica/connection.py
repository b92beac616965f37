"""SQLite's errors about the replica's file, and the disk's about what lies beside it, in our words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storenode.errors import ReplicaBusy, ReplicaDamaged, ReplicaUnwritable

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""SQLITE_ERROR: a statement of ours does not fit the tables, so they are not those that we made."""

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_NOT_TEXT = "Could not decode to UTF-8"
"""How Python's module begins to say that a text is none; it gives no code."""

UNWRITABLE_HINT = "check free space and permissions"


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except UnicodeDecodeError as error:  # SQLite's own words about a damaged name
        raise _damaged(path, error) from error
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGED or str(error).startswith(_NOT_TEXT):
            raise _damaged(path, error) from error
        if code in _BUSY:
            raise ReplicaBusy(f"{path} is locked by another program", hint="find it with: fuser -v FILE") from error
        raise ReplicaUnwritable(f"{path}: {error}", hint=UNWRITABLE_HINT) from error


def _damaged(path: Path, error: Exception) -> ReplicaDamaged:
    problem = f"{path} is not a sound replica: {error}"
    return ReplicaDamaged(problem, hint="storenode run sets it aside and fetches a new one")


@contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Turn the disk's refusals into ReplicaUnwritable."""
    try:
        yield
    except OSError as error:
        raise ReplicaUnwritable(f"{path}: {error.strerror or error}", hint=UNWRITABLE_HINT) from error
