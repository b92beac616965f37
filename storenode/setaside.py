"""Setting a damaged replica aside, so that a new one is filled from the broker; HQ is not needed.

No connection of ours may be open. Readers that have the old file open keep reading it. The log goes first: a
crash in between leaves a file without its log, never a new file under an old log.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import structlog

from storenode.core.damage import is_ours
from storenode.errors import ReplicaDamaged
from storenode.schema import APPLICATION_ID

log = structlog.get_logger()

KEPT_MAX = 2
SUFFIXES = ("-wal", "-shm", "")


def set_aside(path: Path, now: datetime, error: ReplicaDamaged, *, served_here: bool) -> None:
    """Rename the file and its log to `.damaged-<UTC time>`. Raises `error` when it is somebody else's."""
    with path.open("rb") as file:
        header = file.read(100)
    if not is_ours(header, APPLICATION_ID, served_here=served_here):
        raise error
    aside = path.with_name(f"{path.name}.damaged-{now:%Y%m%dT%H%M%S.%fZ}")
    for suffix in SUFFIXES:
        part = Path(f"{path}{suffix}")
        if part.exists():
            part.rename(f"{aside}{suffix}")
    log.error("replica.set_aside", file=aside.name, reason=str(error))
    kept = sorted(p for p in path.parent.glob(f"{path.name}.damaged-*") if p.name.endswith("Z"))
    for old in kept[:-KEPT_MAX]:
        for suffix in SUFFIXES:
            Path(f"{old}{suffix}").unlink(missing_ok=True)
