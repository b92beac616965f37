"""Setting a damaged replica aside, so that a new one is filled from the broker; HQ is not needed.

No connection of ours may be open. Readers that have the old file open keep reading it. The file goes before its log:
SQLite removes a log that lies beside no file, while a file that lost its log can be a mixture of two states. The log's
index goes before both: readers of the old file may still hold it, and a new file must not begin under theirs.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from storelink.host.logs import get_logger
from storenode.errors import ReplicaDamaged
from storenode.replica.connection import on_disk
from storenode.replica.damage import is_ours
from storenode.replica.schema import APPLICATION_ID

log = get_logger()

KEPT_MAX = 2
SUFFIXES = ("-shm", "", "-wal")


def set_aside(path: Path, now: datetime, error: ReplicaDamaged, *, served_here: bool) -> None:
    """Rename the file and its log to `.damaged-<UTC time>`. Raises `error` when it is somebody else's.

    Raises ReplicaUnwritable when the disk refuses; what is left is set aside the next time.
    """
    with on_disk(path), path.open("rb") as file:
        header = file.read(100)
    if not is_ours(header, APPLICATION_ID, served_here=served_here):
        raise error
    with on_disk(path):
        aside = move_aside(path, "damaged", now)
    log.error("replica.set_aside", file=aside.name, reason=str(error))
    drop_older(path, "damaged")


def move_aside(path: Path, label: str, now: datetime) -> Path:
    """Rename the file and its companions to `.LABEL-<UTC time>`; returns the new name. Raises OSError."""
    aside = path.with_name(f"{path.name}.{label}-{now:%Y%m%dT%H%M%S.%fZ}")
    for suffix in SUFFIXES:
        part = Path(f"{path}{suffix}")
        if part.exists():
            part.rename(f"{aside}{suffix}")
    return aside


def drop_older(path: Path, label: str) -> None:
    """Remove all but the newest that were moved aside under a label."""
    kept = sorted({_whole(p) for p in path.parent.glob(f"{path.name}.{label}-*")})
    for old in kept[:-KEPT_MAX]:
        for suffix in SUFFIXES:
            Path(f"{old}{suffix}").unlink(missing_ok=True)


def _whole(part: Path) -> Path:
    """The file that this is, or is a companion of; a crash may have left only a companion."""
    return part.with_name(part.name.removesuffix("-wal").removesuffix("-shm"))
