"""How long deletions are remembered: tombstones older than a setting leave the master, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile

from hq.errors import MasterBusy
from hq.master import schema
from hq.master.connection import BUSY_TIMEOUT_S
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

    def step(self, now_ms: int, wall_ms: int) -> bool:
        """Remove some, if it is time. True when more could be removed at once."""
        if self._next_ms is None:
            self._next_ms = now_ms + min(FIRST_AFTER_MS, self._every_ms)
        if now_ms < self._next_ms:
            return False
        try:
            for row in self._master.streams():
                if self._prune(row.stream, wall_ms - self._keep_ms):
                    return True
        except MasterBusy:
            self._next_ms = now_ms + BUSY_RETRY_MS
            return False
        self._next_ms = now_ms + self._every_ms
        return False

    def _prune(self, stream: Stream, before_ms: int) -> bool:
        oldest_ms = oldest_tombstone_ms(self._master, stream)
        overdue_ms = 0 if self._begun.get(stream) else self._keep_ms // OVERDUE_SHARE
        self._begun[stream] = oldest_ms is not None and oldest_ms < before_ms - overdue_ms
        if not self._begun[stream]:
            return False
        removed, floor = prune_tombstones(self._master, stream, before_ms, PRUNE_MAX)
        log.info("tombstones.pruned", stream=str(stream), tombstones=removed, floor=floor)
        return True


def oldest_tombstone_ms(master: Master, stream: Stream) -> int | None:
    """When the oldest deletion of which there is a tombstone happened. Raises MasterBusy instead of waiting."""
    sql = schema.tombstones(stream.context)
    if not master.query(sql.is_indexed):
        with _impatient(master), master.writing():
            master.query(sql.index)
    found = master.query(sql.oldest, (str(stream), stream.scope, 1))
    return found[0][1] if found else None


def prune_tombstones(master: Master, stream: Stream, before_ms: int, limit: int) -> tuple[int, int]:
    """
    Remove up to `limit` of the oldest tombstones whose deletion is older than `before_ms`, lowest seq first.

    They go strictly in order of seq, so none at or below the stream's new floor, the newest removed, remains.

    Returns:
        How many were removed, and the newest one's seq; 0, 0 if there was nothing to remove.

    Raises:
        MasterBusy: another process is writing; it is not waited for.
    """
    sql = schema.tombstones(stream.context)
    found = master.query(sql.oldest, (str(stream), stream.scope, limit))
    old = list(takewhile(lambda tombstone: tombstone[1] < before_ms, found))
    if not old:
        return 0, 0
    floor = old[-1][0]
    with _impatient(master), master.writing():
        # One of them may have come back to life meanwhile; what remains is still a tombstone, and as old.
        master.query(sql.remove, (stream.scope, floor))
        removed = master.query("SELECT changes()")[0][0]
        master.query("UPDATE streams SET floor = max(floor, ?) WHERE stream = ?", (floor, str(stream)))
    return removed, floor


@contextmanager
def _impatient(master: Master) -> Iterator[None]:
    master.query("PRAGMA busy_timeout = 0")
    try:
        yield
    finally:
        master.query(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
