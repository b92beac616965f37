"""Copies of the master: made while it is in use, proven before they count, and put back as a new incarnation.

A restored master has forgotten changes that stores have seen. So every stream begins a new epoch, and each store
rebuilds from it beside its serving rows; nobody has to go there.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from hq.errors import BackupRefused, MasterDamaged, MasterMissing
from hq.master.audit import verify
from hq.master.backup_check import HINT, check_file
from hq.master.connection import connect, on_disk, translated
from hq.master.context_migration import HINT as CONTEXTS_HINT
from hq.master.context_migration import left_out
from hq.master.lock import hold
from hq.master.store import Master, StreamRow, random_epoch
from hq.master.streams import Entropy
from storelink.contract.contexts import Contexts
from storelink.contract.errors import ContractViolation
from storelink.contract.streams import is_epoch
from storelink.host.files import sync
from storelink.host.sqlite import open_readonly

READ_TIMEOUT_S = 5.0

NO_ROWS = (ContractViolation, msgspec.MsgspecError, ValueError, TypeError, LookupError, RecursionError)
"""What is raised where a row, an event or a record is read that hq has not written."""

SUFFIXES = ("-journal", "-wal", "-shm", "")


def back_up(db: Path, target: Path, contexts: Contexts) -> int:
    """
    Copy the master to `target`, which must not exist; commits go on meanwhile. Returns the copy's size in bytes.

    Raises:
        BackupRefused: the target is there already, or the copy is not sound, or there is more in the master than hq
            has made, which a restore would refuse. No copy is left then.
    """
    if target.exists():
        raise BackupRefused(f"{target} exists", hint="name a file that does not, as in hq-$(date +%F).db")
    if not db.exists():
        raise MasterMissing(f"there is no master at {db}", hint="check db / HQ_DB")
    part = target.with_name(f".{target.name}.part")
    with on_disk(target):
        try:
            _copy(db, part)
            check_file(part, db)
            _prove(part, db, contexts)
            part.rename(target)
            sync(target.parent)
        finally:
            remove(part)
        return target.stat().st_size


def _prove(path: Path, name: Path, contexts: Contexts) -> None:
    """Prove a copy whose file is sound: rows, log and digests in agreement. Raises BackupRefused, MasterDamaged."""
    try:
        with Master.open(path, contexts) as master:
            problems = [f"{each.stream}: {each.problems[0]}" for each in verify(master) if each.problems]
            problems += [f"{row.stream}: its epoch is none" for row in master.streams() if not is_epoch(row.epoch)]
    except NO_ROWS as error:
        raise BackupRefused(f"{name} holds what no master holds: {str(error)[:200]}", hint=HINT) from error
    if problems:
        raise BackupRefused(
            f"{name} does not add up: {problems[0]}", hint="run: hq verify, which checks the master in use"
        )


def restore(db: Path, source: Path, wall_ms: int, contexts: Contexts, entropy: Entropy = random_epoch) -> Path | None:
    """
    Put a copy in the master's place, every stream in a new epoch; returns where the present master was moved to.

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
            check_file(fresh, source)
            _gain(fresh, source, contexts, entropy)
            _prove(fresh, source, contexts)
            streams, had = _present(db, contexts)
            with Master.open(fresh, contexts, entropy) as master:
                if had & set(master.epochs()):  # the present master is of the same chain
                    with master.writing():
                        master.remember_epochs(had)
                newest = max((int(row.epoch[:12], 16) for row in streams + master.streams()), default=0)
                for row in master.streams():
                    master.new_epoch(row.stream, max(wall_ms, newest + 1))
            return _put_in_place(fresh, db, wall_ms)
        finally:
            remove(fresh)


def _gain(fresh: Path, source: Path, contexts: Contexts, entropy: Entropy) -> None:
    """Give rows the columns that their contexts have gained since; what has a context that is not known is refused."""
    try:
        with Master.open(fresh, contexts, entropy) as master:
            with master.writing():
                pass
            unknown = left_out(master.query, contexts)
    except NO_ROWS as error:
        raise BackupRefused(f"{source} holds what no master holds: {str(error)[:200]}", hint=HINT) from error
    for name, reason in unknown.items():
        raise BackupRefused(f"{source} has the context {name}, which cannot be proven: {reason}", hint=CONTEXTS_HINT)


def _put_in_place(fresh: Path, db: Path, wall_ms: int) -> Path | None:
    """Put it there in one transaction of SQLite if the present file still is a database, else by renaming."""
    replaced = db.with_name(f"{db.name}.replaced-{datetime.fromtimestamp(wall_ms / 1000, UTC):%Y%m%dT%H%M%SZ}")
    if not db.exists():
        _settle(fresh)
        fresh.rename(db)
        sync(db.parent)
        return None
    try:
        _copy(db, replaced)
        with closing(connect(fresh, "rw")) as source, closing(connect(db, "rw")) as target:
            source.backup(target)
    except sqlite3.DatabaseError:
        remove(replaced)
        for suffix in SUFFIXES:
            if (part := Path(f"{db}{suffix}")).exists():
                part.rename(f"{replaced}{suffix}")
        _settle(fresh)
        fresh.rename(db)
        sync(db.parent)
    return replaced


def _present(db: Path, contexts: Contexts) -> tuple[list[StreamRow], set[tuple[str, str]]]:
    """The streams of the present master and the epochs that it had, those from after the copy was made among them."""
    try:
        with Master.open(db, contexts) as master:
            return master.streams(), set(master.epochs())
    except (MasterDamaged, MasterMissing):
        return [], set()


def _copy(source: Path, target: Path) -> None:
    with closing(open_readonly(source, READ_TIMEOUT_S)) as reader, closing(sqlite3.connect(target)) as writer:
        writer.execute("PRAGMA synchronous = FULL")
        reader.backup(writer)
    _settle(target)


def _settle(path: Path) -> None:
    """Have all of it in the one file, and on disk."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = DELETE").fetchone()
    sync(path)


def remove(path: Path) -> None:
    """Remove a database file and its log, if there."""
    for suffix in SUFFIXES:
        Path(f"{path}{suffix}").unlink(missing_ok=True)
