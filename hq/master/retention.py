"""How long deletions are remembered: tombstones older than a setting leave the master, a few at a time."""

from __future__ import annotations

from itertools import takewhile

from hq.errors import MasterBusy
from hq.master.store import Master
from storelink.contract.streams import Stream
from storelink.host.logs import get_logger

log = get_logger()

PRUNE_EVERY_MS = 180_000
PRUNE_EVERY_MS_MIN = 1_000
"""What is kept for less than an hour is looked at more often."""

FIRST_AFTER_MS = 2_000
BUSY_RETRY_MS = 1_000
OVERDUE_SHARE = 16
"""It begins when the oldest is overdue by one part in so many of what it is kept, and takes all that are old enough:
segments that may hold what was deleted are rewritten after it, which should not be every few minutes."""

STREAMS_PER_STEP = 200
"""Streams looked at in one step."""

PRUNE_MAX = 1_000
"""Tombstones of one transaction: the write lock is held for a few milliseconds."""


class Retention:
    """Removes tombstones whose deletion is older than `keep_ms`; owned by the publisher's thread.

    A crash leaves what was removed removed and the floor raised with it; the rest goes next time.
    """

    def __init__(self, master: Master, keep_ms: int, *, every_ms: int | None = None) -> None:
        self._master = master
        self._keep_ms = keep_ms
        self._every_ms = every_ms or max(PRUNE_EVERY_MS_MIN, min(PRUNE_EVERY_MS, keep_ms // OVERDUE_SHARE))
        self._next_ms: int | None = None
        self._begun: dict[Stream, bool] = {}
        self._left: list[Stream] = []  # of the round under way, the last one first

    def step(self, mono_ms: int, wall_ms: int) -> bool:
        """Remove some, if it is time. True when more could be removed at once."""
        if self._next_ms is None:
            self._next_ms = mono_ms + min(FIRST_AFTER_MS, self._every_ms)
        if mono_ms < self._next_ms:
            return False
        try:
            self._left = self._left or [row.stream for row in reversed(self._master.streams())]
            for _ in range(min(STREAMS_PER_STEP, len(self._left))):
                if self._prune(self._left[-1], wall_ms - self._keep_ms):
                    return True
                self._left.pop()
            if self._left:
                return True
        except MasterBusy:
            self._next_ms = mono_ms + BUSY_RETRY_MS
            return False
        self._next_ms = mono_ms + self._every_ms
        return False

    def _prune(self, stream: Stream, before_ms: int) -> bool:
        overdue_ms = 0 if self._begun.get(stream) else self._keep_ms // OVERDUE_SHARE
        self._begun[stream] = any(
            at_ms < before_ms - overdue_ms for _, at_ms in self._master.oldest_tombstones(stream, 1)
        )
        if not self._begun[stream]:
            return False
        removed, floor = prune_tombstones(self._master, stream, before_ms, PRUNE_MAX)
        log.info("tombstones.pruned", stream=str(stream), tombstones=removed, floor=floor)
        return True


def prune_tombstones(master: Master, stream: Stream, before_ms: int, limit: int) -> tuple[int, int]:
    """
    Remove up to `limit` of the oldest tombstones whose deletion is older than `before_ms`, lowest seq first.

    They go strictly in order of seq, so none at or below the stream's new floor, the newest removed, remains.

    Returns:
        How many were removed, and the newest one's seq; 0, 0 if there was nothing to remove.

    Raises:
        MasterBusy: another process is writing; it is not waited for.
    """
    old = list(takewhile(lambda tombstone: tombstone[1] < before_ms, master.oldest_tombstones(stream, limit)))
    if not old:
        return 0, 0
    floor = old[-1][0]
    with master.impatient():
        # One of them may have come back to life meanwhile; what remains is still a tombstone, and as old.
        return master.remove_tombstones(stream, floor), floor
