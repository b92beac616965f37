"""SQLite's errors about the replica's file, in our words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storenode.errors import ReplicaBusy, ReplicaDamaged, ReplicaUnwritable

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGED:
            raise ReplicaDamaged(
                f"{path} is not a sound replica: {error}", hint="storenode run sets it aside and fetches a new one"
            ) from error
        if code in _BUSY:
            raise ReplicaBusy(f"{path} is locked by another program", hint="find it with: fuser -v FILE") from error
        raise ReplicaUnwritable(f"{path}: {error}", hint="check free space and permissions") from error
