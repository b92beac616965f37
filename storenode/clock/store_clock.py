"""The store's clock: listens to HQ's messages, judges this machine's clock by them, and writes the judgement down.

Owned by the writer thread. What it writes, the one row of `clock`, is what the views' "now" goes by, also when the
daemon is dead. The rules are in `storenode.core.clock_rules`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple, fields
from pathlib import Path

from storelink.host.logs import get_logger
from storenode.core.clock_rules import BEHIND, CORRECTED, DAY_MS, HELD, NEVER_MS, SKEW_MS_MAX, SUSPECT, Clock, Mark
from storenode.replica.connection import translated
from storenode.replica.writer import Replica

log = get_logger()

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_COLUMNS = ", ".join(field.name for field in fields(Mark))
_DOUBTFUL = (CORRECTED, SUSPECT, HELD, BEHIND)


def steady_ms() -> int:
    """A clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class StoreClock:
    """One machine's clock; `hold_days` 0: never hold it."""

    def __init__(self, replica: Replica, hold_days: int, steady_ms: Callable[[], int] = steady_ms) -> None:
        self._replica, self._steady_ms = replica, steady_ms
        with translated(replica.path):
            row = replica.connection.execute(f"SELECT {_COLUMNS} FROM clock WHERE known_ms > 0").fetchone()
        self._mark = Mark(*row) if row else None
        self._clock = Clock(boot_id(), steady_ms(), self._mark, hold_days * DAY_MS or NEVER_MS)

    @property
    def skew_ms(self) -> int | None:
        """How far this machine is ahead of HQ, where that was measured."""
        return self._mark.skew_ms if self._mark else None

    def now_ms(self, wall_ms: int) -> int:
        """The time that prices go by, by what was last noted."""
        mark = self._mark
        return wall_ms if mark is None else max(mark.known_ms, wall_ms + mark.correction_ms)

    def is_set(self, wall_ms: int) -> bool:
        """Whether somebody has set the wall clock since it was last noted."""
        mark = self._mark
        return mark is not None and abs(wall_ms - mark.wall_ms - (self._steady_ms() - mark.steady_ms)) > SKEW_MS_MAX

    def heard(self, at_ms: int, *, live: bool) -> None:
        """A message came that HQ made at `at_ms`; `live`: just now, on a stream that is level."""
        self._clock.heard(at_ms, self._steady_ms(), live=live)

    def note(self, wall_ms: int) -> None:
        """Write down how the clock stands."""
        mark = self._clock.read(self._steady_ms(), wall_ms)
        if mark is None:
            return
        if self._mark is None or mark.verdict != self._mark.verdict:
            (log.warning if mark.verdict in _DOUBTFUL else log.info)(
                "clock.judged", verdict=mark.verdict, skew_ms=mark.skew_ms, correction_ms=mark.correction_ms
            )
        self._mark = mark
        with translated(self._replica.path):
            self._replica.connection.execute(
                f"INSERT OR REPLACE INTO clock(id, {_COLUMNS}) VALUES(1{', ?' * len(fields(Mark))})", astuple(mark)
            )


def boot_id() -> str:
    """Names this start of the machine; empty where the system does not say, which never equals another start's."""
    with suppress(OSError):
        return BOOT_ID.read_text(encoding="ascii").strip()
    return ""
