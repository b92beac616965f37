"""The store's clock: judges this machine's clock by the times of HQ's messages, and stores the judgement.

Owned by the writer thread. The judgement is the one row of the table `clock` (storenode/replica/price_clock.py); the
views' "now" goes by that row, also when the daemon is dead. The rules are in `storenode.core.clock_rules`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from storelink.host.logs import get_logger
from storenode.core.clock_rules import BEHIND, CORRECTED, DAY_MS, HELD, NEVER_MS, SKEW_MS_MAX, SUSPECT, Clock, Mark
from storenode.replica.file import translated
from storenode.replica.price_clock import read_mark, write_mark
from storenode.replica.writer import Replica

log = get_logger()

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_WARNED_OF = (CORRECTED, SUSPECT, HELD, BEHIND)


def steady_ms() -> int:
    """A clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class StoreClock:
    """One machine's clock; see `open`. `boot` names this start of the machine, `mark` is what the replica has."""

    def __init__(
        self, replica: Replica, hold_days: int, boot: str, mark: Mark | None, steady_ms: Callable[[], int]
    ) -> None:
        self._replica, self._mark, self._steady_ms = replica, mark, steady_ms
        self._clock = Clock(boot, steady_ms(), mark, hold_days * DAY_MS or NEVER_MS)

    @classmethod
    def open(cls, replica: Replica, hold_days: int, steady_ms: Callable[[], int] = steady_ms) -> Self:
        """Go on from what the replica has; `hold_days` 0: never hold the clock."""
        with translated(replica.path):
            mark = read_mark(replica.connection)
        return cls(replica, hold_days, boot_id(), mark, steady_ms)

    @property
    def skew_ms(self) -> int | None:
        """How far this machine is ahead of HQ, where that was measured."""
        return self._mark.skew_ms if self._mark else None

    def price_ms(self, wall_ms: int) -> int:
        """The time that prices go by, by what was last stored."""
        mark = self._mark
        return wall_ms if mark is None else max(mark.known_ms, wall_ms + mark.correction_ms)

    def is_set(self, wall_ms: int) -> bool:
        """Whether somebody has set the wall clock since it was last judged."""
        mark = self._mark
        return mark is not None and abs(wall_ms - mark.wall_ms - (self._steady_ms() - mark.steady_ms)) > SKEW_MS_MAX

    def heard(self, at_ms: int, *, live: bool) -> None:
        """Take in a message that HQ made at `at_ms`; `live`: just now, on a stream with nothing to catch up with."""
        self._clock.heard(at_ms, self._steady_ms(), live=live)

    def note(self, wall_ms: int) -> None:
        """Judge the wall clock, and store the judgement."""
        mark = self._clock.read(self._steady_ms(), wall_ms)
        if mark is None:
            return
        if self._mark is None or mark.verdict != self._mark.verdict:
            (log.warning if mark.verdict in _WARNED_OF else log.info)(
                "clock.judged", verdict=mark.verdict, skew_ms=mark.skew_ms, correction_ms=mark.correction_ms
            )
        self._mark = mark
        with translated(self._replica.path):
            write_mark(self._replica.connection, mark)


def boot_id() -> str:
    """Names this start of the machine; empty where the system does not say, which never equals another start's."""
    with suppress(OSError):
        return BOOT_ID.read_text(encoding="ascii").strip()
    return ""
