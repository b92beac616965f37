"""How long HQ keeps what stores sent: entries older than a setting leave the inbox, a few at a time."""

from __future__ import annotations

from hq.collect.inbox import PRUNE_MAX, StoreInbox
from hq.errors import HqError
from storelink.host.logs import get_logger

log = get_logger()

EVERY_MS = 600_000


class InboxRetention:
    """Drops entries that came longer than `keep_ms` ago, 0 for never; owned by the collector's thread."""

    def __init__(self, inbox: StoreInbox, keep_ms: int) -> None:
        self._inbox, self._keep_ms = inbox, keep_ms
        self._next_ms = 0
        self._dropped = 0

    def step(self, now_ms: int, wall_ms: int) -> bool:
        """Drop some, if it is time. True when there may be more."""
        if not self._keep_ms or now_ms < self._next_ms:
            return False
        try:
            dropped = self._inbox.prune(wall_ms - self._keep_ms)
        except HqError as error:
            log.error("inbox.failed", path=str(self._inbox.path), error=str(error))
            dropped = 0
        self._dropped += dropped
        if dropped == PRUNE_MAX:
            return True
        if self._dropped:
            log.info("inbox.pruned", entries=self._dropped)
        self._dropped, self._next_ms = 0, now_ms + EVERY_MS
        return False
