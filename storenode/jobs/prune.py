"""Removes what a store keeps for a time only: files that were moved away, and what a crash left half done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from storelink.host.logs import get_logger
from storenode.jobs.backup import PART_SUFFIX

log = get_logger()

MOVED_AWAY_DAYS = 30
PART_HOURS = 24
_STAMP = "%Y%m%dT%H%M%S.%fZ"


def prune(db: Path, backup_dir: Path | None, now: datetime) -> int:
    """Remove files whose time is over, beside the replica and among the backups; returns how many."""
    found = [*_moved_away(db, now), *_unfinished(db, backup_dir, now)]
    for path in found:
        path.unlink(missing_ok=True)
    if found:
        log.info("files.pruned", files=len(found))
    return len(found)


def _moved_away(db: Path, now: datetime) -> Iterator[Path]:
    """Replicas that were damaged or replaced, with their companions."""
    for label in ("damaged", "replaced"):
        mark = f"{db.name}.{label}-"
        for path in db.parent.glob(f"{mark}*"):
            stamp = path.name.removeprefix(mark).removesuffix("-wal").removesuffix("-shm")
            with suppress(ValueError):
                if (now - datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)).days >= MOVED_AWAY_DAYS:
                    yield path


def _unfinished(db: Path, backup_dir: Path | None, now: datetime) -> Iterator[Path]:
    """Parts that a backup or a restore left when it crashed."""
    parts = [*db.parent.glob(f".{db.name}.restoring*")]
    if backup_dir is not None:
        parts += backup_dir.glob(f".replica-*{PART_SUFFIX}*")
    for path in parts:
        with suppress(FileNotFoundError):
            if now.timestamp() - path.stat().st_mtime > PART_HOURS * 3_600:
                yield path
