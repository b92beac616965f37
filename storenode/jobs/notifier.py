"""Notifications of price changes: the hook gets them for the labels, and HQ gets them if the settings say so.

Never in the writer's thread: the look at the prices and the hook have a thread each. A hook that fails is tried again
a few times, with growing pauses, and then given up; nothing else waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from storelink.contract.times import rfc3339
from storelink.host.logs import get_logger
from storenode.errors import HookFailed
from storenode.jobs.hook import TIME_LIMIT_S, run_hook
from storenode.jobs.price_changes import ChangesFound, PendingChange, PriceChanges
from storenode.outbox.store import Outbox

log = get_logger()

ENTRY_TYPE = "storenode.price.activated"
ENTRY_SKUS_MAX = 200
HOOK_PRICES_MAX = 1_000
"""Prices of one call of the hook: about 150 kB."""

RETRY_AFTER_S = (60, 300, 900)
"""Pauses before the second, third and fourth try; after that the pending changes are given up."""

FIRST_WAIT_S = 60
"""How long the first look waits for streams that have never come: HQ may have none of that scope."""


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class PriceChangeNotifier:
    """Notifies the hook and HQ of one store's prices. `find_changes` and `notify_hook` have a thread each."""

    def __init__(
        self,
        store_id: str,
        changes: PriceChanges,
        outbox: tuple[Path, int],
        *,
        hook: str | None,
        hq: bool,
        wall_ms: Callable[[], int] = _wall_ms,
        monotonic_s: Callable[[], float] = time.monotonic,
        time_limit_s: float = TIME_LIMIT_S,
    ) -> None:
        self._store_id, self._changes, self._outbox = store_id, changes, outbox
        self._hook, self._hq, self._time_limit_s = hook, hq, time_limit_s
        self._wall_ms, self._monotonic_s = wall_ms, monotonic_s
        self._failures, self._retry_s = 0, 0.0
        self._sent_minute = 0
        self._begun_s: float | None = None

    def find_changes(self, *, all_prices: bool = False) -> ChangesFound:
        """Find what changed; `all_prices`: look at every price, because the clock was set."""
        if self._begun_s is None:
            self._begun_s = self._monotonic_s()
        found = self._changes.find(
            None,
            hook=self._hook is not None,
            hq=self._hq,
            all_prices=all_prices,
            wait_for_all=self._monotonic_s() - self._begun_s < FIRST_WAIT_S,
        )
        if found.changed:
            log.info("prices.activated", prices=found.changed)
        return found

    @property
    def may_try_hook(self) -> bool:
        """Whether the hook may be called now; after a failure there is a pause."""
        return self._hook is not None and self._monotonic_s() >= self._retry_s

    def has_pending(self) -> bool:
        """Whether there is any change to notify the hook of."""
        return bool(self._changes.pending_for_hook(1))

    def notify_hook(self) -> int:
        """
        Notify the hook of all pending changes, the oldest first; returns how many prices.

        Raises:
            HookFailed: the rest stays pending, or was given up.
        """
        delivered = 0
        while pending := self._changes.pending_for_hook(HOOK_PRICES_MAX):
            try:
                run_hook(self._hook or "", self._body(pending), self._time_limit_s)
            except HookFailed as error:
                raise self._failed(error, delivered) from error
            self._changes.mark_delivered(pending)
            self._failures = 0
            delivered += len(pending)
        return delivered

    def _failed(self, error: HookFailed, delivered: int) -> HookFailed:
        """What a failure means: a pause, or the end of the tries."""
        self._failures += 1
        if self._failures <= len(RETRY_AFTER_S):
            pause_s = RETRY_AFTER_S[self._failures - 1]
            self._retry_s = self._monotonic_s() + pause_s
            log.warning("hook.failed", error=str(error), failures=self._failures, retry_s=pause_s)
            problem = f"{error}; tried again in {pause_s} s, {delivered} prices were delivered"
            return HookFailed(problem, hint=error.hint)
        self._failures, self._retry_s = 0, 0.0
        lost = 0
        while pending := self._changes.pending_for_hook(HOOK_PRICES_MAX):
            self._changes.mark_delivered(pending)
            lost += len(pending)
        log.error("hook.given_up", error=str(error), prices=lost)
        return HookFailed(f"{error}; given up, {lost} prices were not delivered", hint=error.hint)

    def _body(self, pending: Sequence[PendingChange]) -> bytes:
        return msgspec.json.encode(
            {
                "store_id": self._store_id,
                "at": rfc3339(self._wall_ms()),
                "skus": [change.sku for change in pending],
                "prices": [{"sku": change.sku, **change.price} for change in pending],
            }
        )

    def notify_hq(self) -> None:
        """Append one entry, at most one a minute, for all changes that HQ was not notified of and wants to hear of."""
        at_ms = self._wall_ms()
        minute = at_ms // 60_000
        if not self._hq or minute == self._sent_minute:
            return
        count, skus = self._changes.pending_for_hq(ENTRY_SKUS_MAX)
        if count:
            path, max_bytes = self._outbox
            with Outbox(path, max_bytes) as outbox:
                outbox.append(ENTRY_TYPE, {"at": rfc3339(at_ms), "count": count, "skus": skus}, at_ms)
            self._changes.mark_sent_to_hq()
            self._sent_minute = minute
