"""Restores a replica from a backup, while the daemon is down; the daemon then catches up from where the backup stands.

The backup is copied to a file beside the replica and proven there (storenode/jobs/backup_check.py), before anything is
touched. Then the present replica and its log are moved away, and the copy is renamed into its place. A crash in between
leaves the old replica, none (the daemon then fetches a new one), or the restored one.
What waits for HQ in `outbox.db` waits on, under the epoch that HQ knows. The store's own prices come from the outbox,
not from the backup. The outbox may not know some that the backup has: it was lost with the machine, or somebody else
wrote them into the file. Those are put back only if the operator says so, and then HQ hears of them.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from storelink.contract.contexts import Contexts
from storelink.contract.times import rfc3339
from storelink.host.files import sync
from storelink.host.locks import lock_instance, lock_path
from storelink.host.sqlite import open_readonly, transaction
from storenode.core.clock_rules import DAY_MS, NEVER_MS, UNCONFIRMED, Mark
from storenode.core.overrides import Override
from storenode.errors import (
    AlreadyRunning,
    BackupUnsound,
    BadArgument,
    OverridesUnknown,
    ReplicaDamaged,
    ReplicaUnwritable,
    StorenodeError,
)
from storenode.jobs import backup
from storenode.jobs.backup_check import check
from storenode.outbox import file
from storenode.outbox.overrides import KEPT_S, put, read_if_there
from storenode.outbox.overrides import check as check_override
from storenode.outbox.store import Outbox
from storenode.replica import overrides
from storenode.replica.file import drop_older, is_ours, move_away, reading, translated
from storenode.replica.price_clock import read_mark, write_mark
from storenode.replica.search_index import SearchIndex
from storenode.replica.writer import forget_daemon

LABEL = "replaced"
COMPANIONS = ("-journal", "-wal", "-shm", "")
SKUS_SHOWN_MAX = 5

Unknown = Literal["set", "drop"]
"""What becomes of own prices that the outbox does not know: they are set again, and HQ hears of them; or left out."""

READ_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Restored:
    """What is in place now. `former`: where the former replica is, if there was one; `overrides`: those set again."""

    positions: dict[str, int]
    former: Path | None
    overrides: int


def restore(
    file: Path,
    db: Path,
    contexts: Contexts,
    outbox: Path,
    store_id: str,
    now: datetime,
    *,
    unknown: Unknown | None = None,
) -> Restored:
    """
    Put a backup in the replica's place.

    Args:
        unknown: what becomes of own prices in force that the outbox does not know; None: the backup is refused then.

    Raises:
        AlreadyRunning: the daemon runs.
        BackupUnsound: the file is not a complete backup; nothing was touched.
        OverridesUnknown: as `unknown` says; nothing was touched.
        ReplicaDamaged: what is at `db` is not ours; nothing was touched.
        ReplicaUnwritable: no space or no right to write there.
        OutboxFull, OutboxBusy, OutboxUnwritable, OutboxDamaged: if the replica is in place, not all overrides are.
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
            _refuse_foreign_file(db)
            part = db.with_name(f".{db.name}.restoring")
            try:
                _remove(part)
                shutil.copyfile(file, part)
                positions = check(part, contexts, file)  # the copy: what is proven is what is put in place
                own = _overrides_of(outbox)
                lost = _unknown(part, file, own, now, unknown)
                _take_over(part, file, _present_mark(db), own, store_id, now)
                former = _put_in_place(part, db, now)
            finally:
                _remove(part)
            return Restored(positions, former, _set_again(lost, outbox, now))
    except OSError as error:
        raise ReplicaUnwritable(f"{db}: {error.strerror or error}", hint="check owner, mode and free space") from error


def _remove(part: Path) -> None:
    for suffix in COMPANIONS:
        Path(f"{part}{suffix}").unlink(missing_ok=True)


def _put_in_place(part: Path, db: Path, now: datetime) -> Path | None:
    part.chmod(backup.FILE_MODE)
    sync(part)
    former = _move_away(db, now)
    part.rename(db)
    sync(db.parent)
    return former


def _overrides_of(outbox: Path) -> list[Override]:
    """The own prices that the outbox keeps; none without an outbox. Raises OutboxDamaged and the like."""
    if not outbox.exists():
        return []
    with file.translated(outbox), closing(open_readonly(outbox, READ_TIMEOUT_S)) as db:
        file.check_outbox(db, outbox)
        return read_if_there(db)


def _unknown(part: Path, file: Path, own: Sequence[Override], now: datetime, unknown: Unknown | None) -> list[Override]:
    """
    Return the own prices to set again: of the backup, in force or to come, and not known to the outbox.

    What the outbox keeps of a sku, withdrawn or not, is newer than the backup. Overrides that are over have no effect.
    Where the daemon was last seen longer ago than an outbox keeps them, nothing says whether they were ended.
    """
    now_s = int(now.timestamp())
    with reading(part) as db:
        seen = db.execute("SELECT seen_at_ms FROM daemon").fetchone()
        known = {each.sku for each in own}
        lost = [each for each in overrides.read(db) if each.ends_at > now_s and each.sku not in known]
    if seen is None or now_s - (seen[0] or 0) // 1000 > KEPT_S or unknown == "drop":
        return []
    if lost and unknown is None:
        shown = [f"{each.sku[:64]!r} {each.amount_minor} {each.currency}" for each in lost[:SKUS_SHOWN_MAX]]
        more = f" and {len(lost) - SKUS_SHOWN_MAX} more" if len(lost) > SKUS_SHOWN_MAX else ""
        raise OverridesUnknown(
            f"{file} has prices of this store's own that its outbox does not know: {', '.join(shown)}{more}",
            hint="leave them out: --overrides drop; or, if you know them, set them again and tell HQ: --overrides set",
            skus=[each.sku for each in lost],
        )
    for each in lost:
        try:
            check_override(each.sku, each.amount_minor, each.currency, each.until, each.reason, now_s)
        except BadArgument as error:
            raise BackupUnsound(f"{file} holds an override that nobody can have set: {error}") from error
    return [each for each in lost if each.holds(now_s)]


def _take_over(
    part: Path, file: Path, present: Mark | None, own: Sequence[Override], store_id: str, now: datetime
) -> None:
    """Put into the copy what only this machine knows, its own prices and its clock; give the search index up."""
    with translated(part), closing(sqlite3.connect(part, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = MEMORY")
        db.execute("PRAGMA synchronous = OFF")  # a crash leaves a part that nobody reads; synced once, when complete
        known_ms = db.execute("SELECT max(known_ms) FROM clock").fetchone()[0] or 0
        if present is None and known_ms > now.timestamp() * 1000 + DAY_MS:
            raise BackupUnsound(
                f"{file} knows of a time later than this machine's clock: {rfc3339(known_ms)}",
                hint="is the clock right? timedatectl; set it, then type this again",
            )
        mark = present or Mark(known_ms, 0, 0, None, UNCONFIRMED, NEVER_MS, "", 0)
        with transaction(db):
            write_mark(db, mark)
            forget_daemon(db)
            overrides.forget(db)
            SearchIndex(db).give_up()
        overrides.copy(db, own, store_id)


def _present_mark(db: Path) -> Mark | None:
    """What the present replica has of this machine's clock; None if it cannot be read."""
    with suppress(StorenodeError), reading(db) as replica:
        return read_mark(replica)
    return None


def _set_again(lost: Sequence[Override], outbox: Path, now: datetime) -> int:
    """Set own prices as if typed now, so that HQ hears of them."""
    if lost:
        with Outbox(outbox) as opened:
            for each in lost:
                at_ms = int(now.timestamp()) * 1000
                put(opened, each.sku, each.amount_minor, each.currency, each.until, each.reason, at_ms)
    return len(lost)


def _refuse_foreign_file(db: Path) -> None:
    """Raise ReplicaDamaged for a file that is not ours. What opens as a replica is ours; else the header decides."""
    if not db.exists() or db.stat().st_size == 0:
        return
    try:
        with reading(db):
            return
    except ReplicaDamaged:
        with db.open("rb") as present:
            header = present.read(100)
        if not is_ours(header, served_here=True):
            raise


def _move_away(db: Path, now: datetime) -> Path | None:
    """Move the replica away with its log: a new file must never begin under an old log."""
    was_there = db.exists()
    former = move_away(db, LABEL, now)
    sync(db.parent)
    drop_older(db, LABEL)
    return former if was_there else None
