"""The replica's file: opening it to read, SQLite's and the disk's errors in our words, moving a damaged file away.

When a damaged file is moved away, a new one is filled from the broker; HQ is not needed. No connection of ours may be
open then. Readers that have the old file open keep reading it. The file goes before its log: SQLite removes a log that
lies beside no file, while a file that lost its log can be a mixture of two states. The log's index goes before both:
readers of the old file may still hold it, and a new file must not begin under theirs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from storelink.host.logs import get_logger
from storelink.host.sqlite import Trouble, open_readonly, trouble_of
from storenode.errors import ReplicaBusy, ReplicaDamaged, ReplicaMissing, ReplicaUnwritable
from storenode.replica.schema import APPLICATION_ID

log = get_logger()

UNWRITABLE_HINT = "check free space and permissions"
REPLACED_HINT = "storenode run moves it away and fetches a new one"
BUSY_TIMEOUT_S = 2.0

MAGIC = b"SQLite format 3\0"
IDENT_AT = 68
"""Where SQLite's header has the application id, big-endian, 4 bytes."""

HEADER_BYTES = 100
KEPT_MAX = 2
SUFFIXES = ("-shm", "", "-wal")

Source = Path | sqlite3.Connection
"""A replica's file, or a connection whose owner holds a snapshot."""


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


@contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Turn the disk's refusals into ReplicaUnwritable."""
    try:
        yield
    except OSError as error:
        raise ReplicaUnwritable(f"{path}: {error.strerror or error}", hint=UNWRITABLE_HINT) from error


def open_to_read(path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """
    Open a replica that this connection cannot change; the one way to do so.

    Args:
        busy_timeout_s: how long a statement waits for another connection's lock.

    Raises:
        ReplicaMissing: there is no such file.
        ReplicaDamaged: it is no replica.
        sqlite3.DatabaseError: SQLite cannot open it; `translated` puts that into our words.
    """
    if not path.exists():
        raise ReplicaMissing(
            f"there is no replica at {path}", hint="start the daemon (storenode run), or set --db / STORENODE_DB"
        )
    db = open_readonly(path, busy_timeout_s)
    try:
        if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise ReplicaDamaged(f"{path} is not a replica", hint="check --db / STORENODE_DB")
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def reading(source: Source) -> Iterator[sqlite3.Connection]:
    """One snapshot of the replica, read-only; of a file, the connection is closed at the end."""
    if isinstance(source, sqlite3.Connection):
        yield source
        return
    with translated(source):
        db = open_to_read(source)
        try:
            db.execute("BEGIN")
            yield db
        finally:
            db.close()


def replace_damaged(path: Path, now: datetime, error: ReplicaDamaged, *, served_here: bool) -> None:
    """
    Move the file and its log away, to `.damaged-<UTC time>`; the caller makes a new one.

    Args:
        served_here: a replica of this name was open before.

    Raises:
        ReplicaDamaged: `error`, when the file is somebody else's.
        ReplicaUnwritable: the disk refuses; what is left is moved the next time.
    """
    with on_disk(path), path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if not is_ours(header, served_here=served_here):
        raise error
    with on_disk(path):
        moved = move_away(path, "damaged", now)
    log.error("replica.moved_away", file=moved.name, reason=str(error))
    drop_older(path, "damaged")


def is_ours(header: bytes, *, served_here: bool) -> bool:
    """
    Whether a file that does not open as a replica may be moved away.

    Args:
        header: its first HEADER_BYTES, fewer when it is shorter.
        served_here: a replica of this name was open before; counts only where the header says nothing.
    """
    if header[IDENT_AT : IDENT_AT + 4] == APPLICATION_ID.to_bytes(4, "big"):
        return True
    return served_here and not header.startswith(MAGIC)


def move_away(path: Path, label: str, now: datetime) -> Path:
    """Rename the file and its companions to `.LABEL-<UTC time>`; returns the new name. Raises OSError."""
    moved = path.with_name(f"{path.name}.{label}-{now:%Y%m%dT%H%M%S.%fZ}")
    for suffix in SUFFIXES:
        part = Path(f"{path}{suffix}")
        if part.exists():
            part.rename(f"{moved}{suffix}")
    return moved


def drop_older(path: Path, label: str) -> None:
    """Remove all but the newest KEPT_MAX that were moved away under a label."""
    kept = sorted({_main_file(p) for p in path.parent.glob(f"{path.name}.{label}-*")})
    for old in kept[:-KEPT_MAX]:
        for suffix in SUFFIXES:
            Path(f"{old}{suffix}").unlink(missing_ok=True)


def _main_file(part: Path) -> Path:
    """The file that this is, or is a companion of; a crash may have left only a companion."""
    return part.with_name(part.name.removesuffix("-wal").removesuffix("-shm"))


def _damaged(path: Path, error: Exception) -> ReplicaDamaged:
    return ReplicaDamaged(f"{path} is not a sound replica: {error}", hint=REPLACED_HINT)
