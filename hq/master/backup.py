"""Copies of the master: made while it is in use, proven before they count, and put back as a new incarnation.

A restored master has forgotten changes that stores have seen. So every stream begins a new epoch, and each store
rebuilds from it beside its serving rows; nobody has to go there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from hq.errors import BackupRefused, MasterDamaged, MasterMissing
from hq.master import epochs
from hq.master.audit import verify
from hq.master.connection import connect, not_a_master, on_disk, translated
from hq.master.lock import hold
from hq.master.schema import APPLICATION_ID
from hq.master.store import Master, StreamRow, random_epoch
from storelink.host.sqlite import sync

SUFFIXES = ("-wal", "-shm", "")


def back_up(db: Path, target: Path) -> int:
    """
    Copy the master to `target`, which must not exist; commits go on meanwhile. Returns the copy's size in bytes.

    Raises:
        BackupRefused: the target is there already, or the copy does not prove sound; nothing is left of it then.
    """
    if target.exists():
        raise BackupRefused(f"{target} exists", hint="name a file that does not, as in hq-$(date +%F).db")
    if not db.exists():
        raise MasterMissing(f"there is no master at {db}", hint="check db / HQ_DB")
    part = target.with_name(f".{target.name}.part")
    with on_disk(target):
        try:
            _copy(db, part)
            check(part)
            part.rename(target)
            sync(target.parent)
        finally:
            remove(part)
        return target.stat().st_size


def check(path: Path) -> None:
    """Prove a copy: the file sound, rows, log and digests in agreement. Raises BackupRefused, MasterDamaged."""
    if not path.exists():
        raise MasterMissing(f"there is no file {path}", hint="name the copy that hq backup made")
    with translated(path), closing(_reading(path)) as copy:
        if copy.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise not_a_master(path)
        (found,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise MasterDamaged(f"{path} is damaged: {found}", hint="take another copy")
    with Master(path) as master:
        problems = [f"{each.stream}: {each.problems[0]}" for each in verify(master) if each.problems]
    if problems:
        raise BackupRefused(f"{path} does not add up: {problems[0]}", hint="hq verify tells the same of the master")


def restore(db: Path, source: Path, now_ms: int, entropy: Callable[[], int] = random_epoch) -> Path | None:
    """
    Put a copy in the master's place, every stream in a new epoch; returns where the present master was put aside.

    The copy itself is not changed. A command that has the master open goes on with the restored one.

    Raises:
        AlreadyRunning: `hq run` has the master.
        BackupRefused, MasterDamaged, MasterMissing: `source` is no sound copy; nothing was changed.
    """
    fresh = db.with_name(f".{db.name}.restoring")
    with hold(db), on_disk(db):
        remove(fresh)
        try:
            if not source.exists():
                raise MasterMissing(f"there is no file {source}", hint="name the copy that hq backup made")
            with translated(source):
                _copy(source, fresh)
            check(fresh)
            had = _epochs_of(db)
            with Master(fresh, entropy) as master:
                if had & set(epochs.noted(master.query)):  # the present master is of the same chain
                    with master.writing():
                        epochs.remember(master, had)
                newest = max((int(row.epoch[:12], 16) for row in _streams_of(db) + master.streams()), default=0)
                for row in master.streams():
                    master.new_epoch(row.stream, max(now_ms, newest + 1))
            return _put_in_place(fresh, db, now_ms)
        finally:
            remove(fresh)


def _put_in_place(fresh: Path, db: Path, now_ms: int) -> Path | None:
    """In one transaction of SQLite where the present file still is a database, else by renaming."""
    aside = db.with_name(f"{db.name}.replaced-{datetime.fromtimestamp(now_ms / 1000, UTC):%Y%m%dT%H%M%SZ}")
    if not db.exists():
        _settle(fresh)
        fresh.rename(db)
        sync(db.parent)
        return None
    try:
        _copy(db, aside)
        with closing(connect(fresh, "rw")) as source, closing(connect(db, "rw")) as target:
            source.backup(target)
    except sqlite3.DatabaseError:
        remove(aside)
        for suffix in SUFFIXES:
            if (part := Path(f"{db}{suffix}")).exists():
                part.rename(f"{aside}{suffix}")
        _settle(fresh)
        fresh.rename(db)
        sync(db.parent)
    return aside


def _streams_of(db: Path) -> list[StreamRow]:
    try:
        with Master(db) as master:
            return list(master.streams())
    except (MasterDamaged, MasterMissing):
        return []


def _epochs_of(db: Path) -> set[tuple[str, str]]:
    """The epochs that the present master had, those from after the copy was made among them."""
    try:
        with Master(db) as master:
            return set(epochs.noted(master.query))
    except (MasterDamaged, MasterMissing):
        return set()


def _copy(source: Path, target: Path) -> None:
    with closing(_reading(source)) as reader, closing(sqlite3.connect(target)) as writer:
        writer.execute("PRAGMA synchronous = FULL")
        reader.backup(writer)
    _settle(target)


def _settle(path: Path) -> None:
    """Have all of it in the one file, and on disk."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = DELETE").fetchone()
    sync(path)


def _reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)


def remove(path: Path) -> None:
    """Remove a database file and its log, if there."""
    for suffix in SUFFIXES:
        Path(f"{path}{suffix}").unlink(missing_ok=True)
