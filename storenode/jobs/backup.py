"""A backup of the replica: one proven file, made while the daemon writes and tills read.

It is a copy of one snapshot, so readers and writer go on. It counts only after its own rows have been hashed and found
equal to what HQ announced, SQLite finds it sound, and it is on the disk under its name. `outbox.db` is not in it:
a copy of an outbox is out of date as soon as the outbox sends on, and a copy that was put back would give the same
seqs to other entries.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from storelink.contract.contexts import Contexts
from storelink.host.files import sync
from storelink.host.logs import get_logger
from storelink.host.sqlite import is_damage
from storenode.errors import BackupFailed, BackupUnsound
from storenode.jobs.backup_check import check
from storenode.replica.file import reading

log = get_logger()

PAGES_PER_STEP = 1_024
FREE_BYTES_KEPT = 100_000_000
"""A backup leaves so much free on its disk; with less, updates would stop."""

FOREIGN_HINT = "a restore would refuse it: drop what is not ours; after an upgrade: systemctl restart storenode"
FILE_MODE = 0o640
PART_SUFFIX = ".part"


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that counts. `positions`: of each stream, where it stands."""

    path: Path
    size_bytes: int
    positions: dict[str, int]
    dropped: tuple[str, ...] = ()


def make(
    replica: Path,
    contexts: Contexts,
    directory: Path,
    store_id: str,
    keep: int,
    now: datetime,
    *,
    go_on: Callable[[], bool] = lambda: True,
) -> Backup:
    """
    Copy the replica into `directory`, prove the copy, and drop all but the newest `keep`.

    Args:
        now: UTC; gives the name, `replica-STORE-20261125T031500Z.db`.
        go_on: asked between steps; False ends it without a trace.

    Raises:
        BackupFailed: nothing was made; the earlier ones are as they were.
        ReplicaMissing, ReplicaDamaged, ReplicaUnwritable: as named.
    """
    name = _free_name(directory, store_id, now)
    part = directory / f".{name}.{os.getpid()}{PART_SUFFIX}"
    try:
        if not directory.is_dir():
            directory.mkdir(parents=True)
        _leave_room(replica, directory)
        part.unlink(missing_ok=True)
        _copy(replica, part, go_on)
        positions = check(part, contexts, replica)
        part.chmod(FILE_MODE)
        sync(part)
        part.rename(directory / name)
        sync(directory)
    except (BackupUnsound, OSError) as error:
        if getattr(error, "differences", ()):
            raise BackupFailed(f"no backup in {directory}: {error}", hint=FOREIGN_HINT) from error
        hint = getattr(error, "hint", "") or "check the directory, its space and mode"
        raise BackupFailed(f"no backup in {directory}: {error}", hint=hint) from error
    finally:
        for left in (part, Path(f"{part}-journal")):
            with suppress(OSError):  # it must not hide what went wrong; pruning takes it later
                left.unlink(missing_ok=True)
    made = directory / name
    return Backup(made, made.stat().st_size, positions, tuple(rotate(directory, store_id, keep)))


def _free_name(directory: Path, store_id: str, now: datetime) -> str:
    """A name that no earlier backup has; of two made within one second, the later gets the name of the next second."""
    while (directory / (name := f"replica-{store_id}-{now:%Y%m%dT%H%M%SZ}.db")).exists():
        now += timedelta(seconds=1)
    return name


def _copy(replica: Path, part: Path, go_on: Callable[[], bool]) -> None:
    """Copy one snapshot. Without a snapshot, SQLite would start again after every commit of the daemon."""

    def between(_status: int, _left: int, _pages: int) -> None:
        if not go_on():
            raise BackupFailed("it was stopped")

    # `reading` holds the snapshot; the log is not cut back meanwhile, everything else goes on.
    with reading(replica) as source:
        source.execute("SELECT count(*) FROM streams").fetchone()
        try:
            with closing(sqlite3.connect(part, isolation_level=None)) as copy:
                copy.execute("PRAGMA synchronous=OFF")  # synced once, when it is complete
                source.backup(copy, pages=PAGES_PER_STEP, progress=between)
                copy.execute("PRAGMA journal_mode=DELETE")  # one file, readable without companions
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                raise  # the replica's
            raise BackupFailed(f"{part.parent}: {error}", hint="free space on its disk, or check its mode") from error


def _leave_room(replica: Path, directory: Path) -> None:
    wal = replica.with_name(replica.name + "-wal")
    needed = FREE_BYTES_KEPT + sum(p.stat().st_size for p in (replica, wal) if p.exists())
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise BackupFailed(
            f"{directory} has {free} bytes free, a backup needs {needed}", hint="free space, or keep fewer: backup_keep"
        )


def rotate(directory: Path, store_id: str, keep: int) -> list[str]:
    """Remove all but the newest `keep` backups of a store; returns their names."""
    pattern = re.compile(rf"replica-{re.escape(store_id)}-\d{{8}}T\d{{6}}Z\.db")
    there = sorted(p for p in directory.iterdir() if pattern.fullmatch(p.name))
    for old in there[: max(len(there) - keep, 0)]:
        old.unlink(missing_ok=True)
    return [old.name for old in there[: max(len(there) - keep, 0)]]
