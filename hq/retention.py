"""How long deletions are remembered: tombstones older than a setting leave the master, a few at a time."""

from __future__ import annotations

import structlog

from hq.errors import MasterBusy
from hq.master import Master

log = structlog.get_logger()

PRUNE_EVERY_MS = 180_000
FIRST_AFTER_MS = 2_000
BUSY_RETRY_MS = 1_000
PRUNE_MAX = 1_000
"""Tombstones of one transaction: the write lock is held for a few milliseconds."""


class Retention:
    """Removes tombstones whose deletion is older than `keep_ms`; owned by the publisher's thread.

    A crash leaves what was removed removed and the floor raised with it; the rest goes next time.
    """

    def __init__(self, master: Master, keep_ms: int, *, every_ms: int = PRUNE_EVERY_MS) -> None:
        self._master = master
        self._keep_ms = keep_ms
        self._every_ms = every_ms
        self._next_ms: int | None = None

    def step(self, now_ms: int, wall_ms: int) -> bool:
        """Remove some, if it is time. True when more could be removed at once."""
        if self._next_ms is None:
            self._next_ms = now_ms + min(FIRST_AFTER_MS, self._every_ms)
        if now_ms < self._next_ms:
            return False
        try:
            for row in self._master.streams():
                removed, floor = self._master.prune_tombstones(row.stream, wall_ms - self._keep_ms, PRUNE_MAX)
                if removed:
                    log.info("tombstones.pruned", stream=str(row.stream), tombstones=removed, floor=floor)
                    return True
        except MasterBusy:
            self._next_ms = now_ms + BUSY_RETRY_MS
            return False
        self._next_ms = now_ms + self._every_ms
        return False
