"""SQLite's errors about the replica's file, and the disk's about what lies beside it, in our words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storelink.host.sqlite import Trouble, trouble_of
from storenode.errors import ReplicaBusy, ReplicaDamaged, ReplicaUnwritable

UNWRITABLE_HINT = "check free space and permissions"


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except UnicodeDecodeError as error:  # SQLite's own words about a damaged name
        raise _damaged(path, error) from error
    except sqlite3.DatabaseError as error:
        match trouble_of(error):
            case Trouble.DAMAGED | Trouble.NO_DATABASE | Trouble.MISFIT:
                raise _damaged(path, error) from error
            case Trouble.BUSY:
                hint = f"find it with: fuser -v {path}"
                raise ReplicaBusy(f"{path} is locked by another program", hint=hint) from error
            case _:
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
