"""The file of what labels were last told: how it is made and opened, and that it begins anew when it is damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storelink.host.logs import get_logger
from storelink.host.sqlite import is_damage, open_file
from storenode.errors import ReplicaMissing
from storenode.replica.file import translated

log = get_logger()

BUSY_TIMEOUT_S = 10.0
CACHE_KIB = 8_192

_SCHEMA = """
CREATE TABLE IF NOT EXISTS told (
    sku TEXT PRIMARY KEY, amount_minor INTEGER, currency TEXT, kind TEXT, scope TEXT, starts_at TEXT, ends_at TEXT,
    lines INTEGER NOT NULL DEFAULT -1, next_s INTEGER,
    owed INTEGER NOT NULL DEFAULT 0, unsent INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS told_next ON told(next_s) WHERE next_s IS NOT NULL;
CREATE INDEX IF NOT EXISTS told_owed ON told(owed) WHERE owed > 0;
CREATE INDEX IF NOT EXISTS told_unsent ON told(sku) WHERE unsent > 0;
CREATE INDEX IF NOT EXISTS told_gone ON told(sku) WHERE lines = 0;
CREATE TABLE IF NOT EXISTS seen (stream TEXT PRIMARY KEY, life TEXT, position INTEGER NOT NULL);
CREATE TEMP TABLE slice (sku TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP TABLE fresh (
    sku TEXT PRIMARY KEY, amount_minor INTEGER, currency TEXT, kind TEXT, scope TEXT, starts_at TEXT, ends_at TEXT
) WITHOUT ROWID;
CREATE TEMP TABLE bounds (sku TEXT PRIMARY KEY, lines INTEGER, next_s INTEGER) WITHOUT ROWID;
"""


@contextmanager
def opened(path: Path, replica: Path) -> Iterator[sqlite3.Connection]:
    """A connection to the file, with the replica beside it as `replica`, read-only."""
    if not replica.exists():
        raise ReplicaMissing(f"there is no replica at {replica}")
    with translated(replica):
        try:
            db = _connect(path)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            _begin_anew(path, str(error))
            db = _connect(path)
        try:
            db.execute("ATTACH ? AS replica", (f"{replica.absolute().as_uri()}?mode=ro",))
            db.execute(f"PRAGMA replica.cache_size=-{CACHE_KIB}")
            yield db
        except sqlite3.DatabaseError as error:
            if is_damage(error) and not _is_sound(db):
                _begin_anew(path, str(error))
            raise
        finally:
            db.close()


def _connect(path: Path) -> sqlite3.Connection:
    db = open_file(path, "rwc", BUSY_TIMEOUT_S)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA temp_store=MEMORY")
        db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db


def _begin_anew(path: Path, reason: str) -> None:
    log.error("told.lost", path=str(path), reason=reason)
    forget(path)


def forget(path: Path) -> None:
    """Remove the file, as when nobody is to be told any more. Its log goes last: SQLite removes one beside no file."""
    for suffix in ("-shm", "", "-wal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _is_sound(db: sqlite3.Connection) -> bool:
    """Whether it is not this file that is damaged, but the replica beside it."""
    try:
        return bool(db.execute("PRAGMA main.quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.DatabaseError:
        return False
