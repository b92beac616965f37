"""The outbox's file: its tables and their owners, how it is created and opened, and the meaning of SQLite's errors."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from storelink.contract.streams import new_epoch
from storelink.host.files import sync
from storelink.host.sqlite import Trouble, open_file, trouble_of
from storenode.errors import OutboxBusy, OutboxDamaged, OutboxFull, OutboxUnwritable, StorenodeError

APPLICATION_ID = 0x53744F62
"""Marks an SQLite file as an outbox ("StOb")."""

VERSION = 1
FILE_MODE, DIRECTORY_MODE = 0o660, 0o2770

TABLES: Mapping[str, str] = {
    "storenode.outbox.store": """
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT NOT NULL, at_ms INTEGER NOT NULL, data TEXT NOT NULL, withheld TEXT
);
CREATE INDEX withheld ON entries (seq) WHERE withheld IS NOT NULL;
CREATE TABLE refused (
    epoch TEXT NOT NULL, seq INTEGER NOT NULL, type TEXT NOT NULL, at_ms INTEGER NOT NULL, data TEXT NOT NULL,
    reason TEXT NOT NULL, PRIMARY KEY (epoch, seq)
);
CREATE TABLE outbox (id INTEGER PRIMARY KEY CHECK (id = 1), epoch TEXT NOT NULL, acked_seq INTEGER NOT NULL);
""",
    "storenode.outbox.overrides": """
CREATE TABLE overrides (
    sku TEXT NOT NULL, amount_minor INTEGER NOT NULL, currency TEXT NOT NULL, starts_at INTEGER NOT NULL,
    ends_at INTEGER NOT NULL, until INTEGER NOT NULL, reason TEXT NOT NULL, set_at_ms INTEGER NOT NULL,
    seq INTEGER NOT NULL, changed_seq INTEGER NOT NULL, PRIMARY KEY (sku, seq)
);
CREATE INDEX overrides_changed ON overrides (changed_seq);
""",
    "storenode.jobs.availability": """
CREATE TABLE availability (
    id INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL, state TEXT NOT NULL, from_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL
);
""",
    "storenode.jobs.history": """
CREATE TABLE jobs (
    name TEXT PRIMARY KEY, since_ms INTEGER NOT NULL, last_at_ms INTEGER, took_ms INTEGER, ok INTEGER, detail TEXT,
    next_at_ms INTEGER
);
""",
}
"""The schema, by the one module that writes the tables. The file is made with all of them (`create`)."""


@dataclass(frozen=True, slots=True)
class OutboxState:
    """Where an outbox stands. Pending are the entries behind `acked_seq`; `refused` counts those that HQ refused."""

    epoch: str
    acked_seq: int
    last_seq: int
    oldest_at_ms: int | None
    refused: int

    @property
    def pending(self) -> int:
        return self.last_seq - self.acked_seq


def outbox_state(db: sqlite3.Connection) -> OutboxState:
    """Read the state in one statement, so of one moment."""
    return OutboxState(
        *db.execute(
            "SELECT epoch, acked_seq,"
            " max(acked_seq, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'entries'), 0)),"
            " (SELECT at_ms FROM entries ORDER BY seq LIMIT 1), (SELECT count(*) FROM refused)"
            " + (SELECT count(*) FROM entries WHERE withheld IS NOT NULL) FROM outbox"
        ).fetchone()
    )


def check_outbox(db: sqlite3.Connection, path: Path) -> None:
    """Raise OutboxDamaged unless the file is an outbox that this version can read."""
    ident, version = (db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("application_id", "user_version"))
    if (ident, version) != (APPLICATION_ID, VERSION):
        raise OutboxDamaged(f"{path} is not an outbox of this version", hint="check outbox / STORENODE_OUTBOX")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise SQLite's errors as ours."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _translation_of(path, error) from error
    except OSError as error:
        problem = f"{path}: {error.strerror or error}"
        raise OutboxUnwritable(problem, hint="check the directory's owner and mode") from error


def _translation_of(path: Path, error: sqlite3.DatabaseError) -> StorenodeError:
    match trouble_of(error):
        case Trouble.FULL:
            return OutboxFull(f"no space for {path}", hint="free space on its disk, then type this again")
        case Trouble.DAMAGED | Trouble.NO_DATABASE:
            return OutboxDamaged(f"{path} is not a sound outbox: {error}", hint="keep a copy, then move it away")
        case Trouble.BUSY:
            return OutboxBusy(f"{path} is held by another program", hint="type this again")
        case _:
            return OutboxUnwritable(f"{path}: {error}", hint="check free space, owner and mode of file and directory")


def connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """Open it with the settings that every writer of an outbox has."""
    db = open_file(path, "rw", busy_timeout_s)
    db.execute("PRAGMA synchronous=FULL")  # what was accepted survives a power cut
    db.execute("PRAGMA wal_autocheckpoint=0")
    return db


def make_directory(path: Path) -> None:
    """Make the directory of the outbox at `path`, if it is not there."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True)
        path.parent.chmod(DIRECTORY_MODE)


def create(path: Path) -> None:
    """Write a complete file beside the path, then link it in: of two processes that do so, one file stays.

    WAL comes last, when nothing is left to be written: a closing connection that fails to move its log into the file
    raises no error, and the file would be linked in without what was in the log.
    """
    make_directory(path)
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with closing(sqlite3.connect(part, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous=FULL")
            marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
            db.executescript(f"BEGIN; {marks} {''.join(TABLES.values())} COMMIT;")
            epoch = new_epoch(time.time_ns() // 1_000_000, secrets.randbits(32))
            db.execute("INSERT INTO outbox VALUES(1, ?, 0)", (epoch,))
            db.execute("PRAGMA journal_mode=WAL")
        part.chmod(FILE_MODE)
        with suppress(FileExistsError):
            path.hardlink_to(part)
    finally:
        for suffix in ("", "-journal", "-wal", "-shm"):
            Path(f"{part}{suffix}").unlink(missing_ok=True)
    sync(path.parent)
