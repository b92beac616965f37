"""Retention of the inbox: entries older than the setting `inbox_days` are removed, a few at a time."""

from __future__ import annotations

from hq.collect.inbox import StoreInbox
from hq.errors import HqError
from storelink.host.logs import get_logger

log = get_logger()

PRUNE_MAX = 1_000
"""Entries that one transaction removes at most, so that stores hardly wait."""

EVERY_MS = 600_000
"""Between two looks for old entries."""


class InboxRetention:
    """Removes entries that came longer than `keep_ms` ago, 0 for never; owned by the receiver's thread."""

    def __init__(self, inbox: StoreInbox, keep_ms: int, prune_max: int = PRUNE_MAX) -> None:
        self._inbox, self._keep_ms, self._prune_max = inbox, keep_ms, prune_max
        self._next_ms = 0
        self._removed = 0

    def step(self, mono_ms: int, wall_ms: int) -> bool:
        """Remove some, if it is time. True when there may be more to remove at once."""
        if not self._keep_ms or mono_ms < self._next_ms:
            return False
        try:
            removed = self._inbox.prune(wall_ms - self._keep_ms, self._prune_max)
        except HqError as error:
            log.error("inbox.failed", path=str(self._inbox.path), error=str(error))
            removed = 0
        self._removed += removed
        if removed == self._prune_max:
            return True
        if self._removed:
            log.info("inbox.pruned", entries=self._removed)
        self._removed, self._next_ms = 0, mono_ms + EVERY_MS
        return False
