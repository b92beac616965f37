"""Restoring a replica from a backup, while the daemon is down; the daemon then catches up from where the backup stands.

The file is proven before anything is touched, copied beside its place, and renamed into it once the replica that is
there, and its log, are set aside. A crash in between leaves the old replica, none (the daemon then fetches a new one),
or the restored one.
What waits for HQ in `outbox.db` waits on, under the epoch that HQ knows. If the outbox was lost with the machine,
the store's own prices that are still in force are set again from the backup, and HQ is told of them.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from storelink.host.process import lock_instance, lock_path
from storelink.host.sqlite import sync
from storenode.errors import AlreadyRunning, BackupUnsound, ReplicaDamaged, ReplicaUnwritable
from storenode.jobs import backup
from storenode.outbox.file import translated
from storenode.outbox.overrides import KEPT_S, put, read
from storenode.outbox.store import Outbox
from storenode.replica import queries
from storenode.replica.damage import is_ours
from storenode.replica.replace_damaged import drop_older, move_aside
from storenode.replica.schema import APPLICATION_ID

LABEL = "replaced"


@dataclass(frozen=True, slots=True)
class Restored:
    """What is in place now. `aside`: where the former replica is, if there was one; `overrides`: those set again."""

    positions: dict[str, int]
    aside: Path | None
    overrides: int


def restore(file: Path, db: Path, outbox: Path, now: datetime) -> Restored:
    """
    Put a backup in the replica's place.

    Raises:
        AlreadyRunning: the daemon runs.
        BackupUnsound: the file is no whole backup; nothing was touched.
        ReplicaDamaged: what is at `db` is not ours; nothing was touched.
        ReplicaUnwritable: no space or no right to write there.
        OutboxFull, OutboxBusy, OutboxUnwritable, OutboxDamaged: the replica is in place, not all overrides are.
    """
    if not file.is_file():
        raise BackupUnsound(f"there is no backup at {file}", hint="ls the directory that backup_dir names")
    try:
        db.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_instance(lock_path(db))
        if lock is None:
            raise AlreadyRunning(
                f"the daemon has the replica {db}", hint="stop it first: systemctl stop storenode; then type this again"
            )
        with closing(lock):
            positions, aside = _put_in_place(file, db, now)
            return Restored(positions, aside, _set_again(db, outbox, now))
    except OSError as error:
        raise ReplicaUnwritable(f"{db}: {error.strerror or error}", hint="check owner, mode and free space") from error


def _put_in_place(file: Path, db: Path, now: datetime) -> tuple[dict[str, int], Path | None]:
    _refuse_a_strangers(db)
    part = db.with_name(f".{db.name}.restoring")
    try:
        shutil.copyfile(file, part)
        positions = backup.check(part)  # the copy: what is proven is what is put in place
        part.chmod(backup.FILE_MODE)
        sync(part)
        aside = _set_aside(db, now)
        part.rename(db)
        sync(db.parent)
    finally:
        part.unlink(missing_ok=True)
    return positions, aside


def _set_again(db: Path, outbox: Path, now: datetime) -> int:
    """Set the overrides in force that the outbox has never known; those that are over it keeps as long as KEPT_S."""
    now_s = int(now.timestamp())
    with queries.reading(db) as replica:
        seen = replica.execute("SELECT seen_at_ms FROM daemon").fetchone()
        held = [each for each in read(replica) if each.holds(now_s)]
    if not held or seen is None or now_s - seen[0] // 1000 > KEPT_S:
        return 0
    with Outbox(outbox) as opened:
        known = _skus_known(outbox)
        lost = [each for each in held if each.sku not in known]
        for each in lost:
            put(opened, each.sku, each.amount_minor, each.currency, each.until, each.reason, now_s * 1000)
    return len(lost)


def _skus_known(outbox: Path) -> set[str]:
    uri = f"{outbox.absolute().as_uri()}?mode=ro"
    with translated(outbox), closing(sqlite3.connect(uri, uri=True)) as db:
        return {each.sku for each in read(db)}


def _refuse_a_strangers(db: Path) -> None:
    """What opens as a replica is ours; of what does not, the header decides."""
    if not db.exists() or db.stat().st_size == 0:
        return
    try:
        with queries.reading(db):
            return
    except ReplicaDamaged:
        with db.open("rb") as present:
            header = present.read(100)
        if not is_ours(header, APPLICATION_ID, served_here=True):
            raise


def _set_aside(db: Path, now: datetime) -> Path | None:
    """Move the replica away with its log: a new file must never begin under an old log."""
    was_there = db.exists()
    aside = move_aside(db, LABEL, now)
    sync(db.parent)
    drop_older(db, LABEL)
    return aside if was_there else None
