"""Opening the master's SQLite file, and HQ's errors for SQLite's."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hq.errors import HqError, MasterBusy, MasterDamaged, MasterUnwritable
from hq.master import schema
from storelink.host.sqlite import Trouble, open_file, trouble_of

BUSY_TIMEOUT_S = 60.0

LOG_BYTES_KEPT = 4_194_304
"""What is left of the write-ahead log's file when it begins anew; less than what a checkpoint is due at."""


UNWRITABLE_HINT = "check free space, owner and mode of file and directory"


def make_for_group(path: Path) -> None:
    """
    Make the file, if it is not there, with what the umask leaves to the group.

    SQLite alone gives a group no writing; with it, members of HQ's group can commit, and what their commands
    leave behind (-wal and -shm take the file's mode) does not lock `hq run` out. One that is there is not opened:
    closing it again would drop the locks of this process. What keeps it from being made, SQLite will report.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o660))


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Open `path` (`rw`: must exist; `rwc`: is made) with the settings that every writer of a master has."""
    connection = open_file(path, mode, BUSY_TIMEOUT_S)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # a commit that was reported survives a power cut
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # one process checkpoints: `hq run`
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_KEPT}")
    connection.execute("PRAGMA cache_size = -65536")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def not_a_master(path: Path) -> MasterDamaged:
    return MasterDamaged(f"{path} is not a master of hq", hint="check db / HQ_DB; hq init makes a new master")


def is_master(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is a master. Raises MasterDamaged for one of another format."""
    ident, version = (connection.execute(f"PRAGMA {p}").fetchone()[0] for p in ("application_id", "user_version"))
    if ident == schema.APPLICATION_ID and version != schema.VERSION:
        raise MasterDamaged(
            f"{path} has format {version}, this hq knows only {schema.VERSION}", hint="use the hq that wrote it"
        )
    return bool(ident == schema.APPLICATION_ID)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise HqErrors for SQLite's."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translated_error(path, error) from error


@contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """As `translated`, for what also renames and removes files: the disk's own refusals are HqErrors as well."""
    try:
        with translated(path):
            yield
    except OSError as error:
        raise MasterUnwritable(f"cannot use {path}: {error.strerror or error}", hint=UNWRITABLE_HINT) from error


def _translated_error(path: Path, error: sqlite3.Error) -> HqError:
    match trouble_of(error):
        case Trouble.BUSY:
            return MasterBusy(f"{path} is held by another command: {error}", hint="wait for it, then type this again")
        case Trouble.NO_DATABASE:
            return not_a_master(path)
        case Trouble.DAMAGED | Trouble.MISFIT:
            return MasterDamaged(
                f"{path} is damaged: {error}", hint="restore the master from a backup: hq restore FILE"
            )
        case _:
            return MasterUnwritable(f"cannot use {path}: {error}", hint=UNWRITABLE_HINT)
