"""Price activations: a price that changes in this store is told to its labels by the hook, and to HQ if it wants that.

Never in the writer's thread: a look and a hook have a thread each. A hook that fails is tried again a few times, with
growing pauses, and then given up; nothing else waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from storelink.contract.times import rfc3339
from storelink.host.logs import get_logger
from storenode.errors import HookFailed
from storenode.jobs.hook import TIME_LIMIT_S, run_hook
from storenode.jobs.price_changes import Look, Owed, PriceChanges
from storenode.outbox.store import Outbox

log = get_logger()

ENTRY_TYPE = "storenode.price.activated"
ENTRY_SKUS_MAX = 200
HOOK_PRICES_MAX = 1_000
"""Prices of one call of the hook: about 150 kB."""

RETRY_AFTER_S = (60, 300, 900)
"""Pauses before the second, third and fourth try; after that what is owed is given up."""

FIRST_PATIENCE_S = 60
"""How long the first look waits for streams that have never come: HQ may have none of that scope."""


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class PriceChangeNotifier:
    """What one store tells of its prices. `look` and `tell_hook` each belong to one thread at a time."""

    def __init__(
        self,
        store_id: str,
        told: PriceChanges,
        outbox: tuple[Path, int],
        *,
        hook: str | None,
        upstream: bool,
        wall_ms: Callable[[], int] = _wall_ms,
        monotonic_s: Callable[[], float] = time.monotonic,
        time_limit_s: float = TIME_LIMIT_S,
    ) -> None:
        self._store_id, self._told, self._outbox = store_id, told, outbox
        self._hook, self._upstream, self._time_limit_s = hook, upstream, time_limit_s
        self._wall_ms, self._monotonic_s = wall_ms, monotonic_s
        self._failures, self._retry_s = 0, 0.0
        self._sent_minute = 0
        self._begun_s: float | None = None

    def look(self, *, wide: bool = False) -> Look:
        """Find what changed; `wide`: the clock was set, every price is looked at."""
        if self._begun_s is None:
            self._begun_s = self._monotonic_s()
        patient = self._monotonic_s() - self._begun_s < FIRST_PATIENCE_S
        found = self._told.look(None, hook=self._hook is not None, upstream=self._upstream, wide=wide, patient=patient)
        if found.changed:
            log.info("prices.activated", prices=found.changed)
        return found

    @property
    def is_hook_due(self) -> bool:
        """Whether the hook may be tried now; after a failure it rests."""
        return self._hook is not None and self._monotonic_s() >= self._retry_s

    @property
    def is_owed(self) -> bool:
        """Whether there is anything to tell the hook."""
        return bool(self._told.owed(1))

    def tell_hook(self) -> int:
        """
        Tell the hook all that it is owed, the oldest first; returns how many prices.

        Raises:
            HookFailed: the rest stays owed, or was given up.
        """
        count = 0
        while debts := self._told.owed(HOOK_PRICES_MAX):
            try:
                run_hook(self._hook or "", self._body(debts), self._time_limit_s)
            except HookFailed as error:
                raise self._failed(error, count) from error
            self._told.pay(debts)
            self._failures = 0
            count += len(debts)
        return count

    def _failed(self, error: HookFailed, told: int) -> HookFailed:
        """What a failure means: a rest, or the end of the tries."""
        self._failures += 1
        if self._failures <= len(RETRY_AFTER_S):
            pause_s = RETRY_AFTER_S[self._failures - 1]
            self._retry_s = self._monotonic_s() + pause_s
            log.warning("hook.failed", error=str(error), failures=self._failures, retry_s=pause_s)
            return HookFailed(f"{error}; tried again in {pause_s} s, {told} prices were told", hint=error.hint)
        self._failures, self._retry_s = 0, 0.0
        lost = 0
        while debts := self._told.owed(HOOK_PRICES_MAX):
            self._told.pay(debts)
            lost += len(debts)
        log.error("hook.given_up", error=str(error), prices=lost)
        return HookFailed(f"{error}; given up, {lost} prices were not told", hint=error.hint)

    def _body(self, debts: list[Owed]) -> bytes:
        return msgspec.json.encode(
            {
                "store_id": self._store_id,
                "at": rfc3339(self._wall_ms()),
                "skus": [debt.sku for debt in debts],
                "prices": [{"sku": debt.sku, **debt.price} for debt in debts],
            }
        )

    def tell_hq(self) -> None:
        """Append one entry, at most one a minute, for all that HQ has not been told and wants to hear."""
        at_ms = self._wall_ms()
        minute = at_ms // 60_000
        if not self._upstream or minute == self._sent_minute:
            return
        count, skus = self._told.unsent(ENTRY_SKUS_MAX)
        if count:
            path, max_bytes = self._outbox
            with Outbox(path, max_bytes) as outbox:
                outbox.append(ENTRY_TYPE, {"at": rfc3339(at_ms), "count": count, "skus": skus}, at_ms)
            self._told.sent()
            self._sent_minute = minute
