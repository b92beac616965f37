"""When a store's jobs are due: whole periods of UTC, counted from 1970; no calendar, no time zone, no summer time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

ACTIVATE, VERIFY, BACKUP, PRUNE, CHECKPOINT = "activate", "verify", "backup", "prune", "checkpoint"
HOOK = "hook"
"""Not by the clock, but its runs are written down like the others'."""

DAY_S, HOUR_S = 86_400, 3_600
SPREAD_S = 1_800
"""Stores that share a machine or a disk do not all begin at once: each has its own delay, the same every night."""

JUMP_MS = 30_000
"""A step of the clock larger than this is a jump; smaller ones are what NTP does."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Due every `period_s`, `offset_s` after its whole multiples since 1970."""

    period_s: int
    offset_s: int = 0

    def next_ms(self, after_ms: int) -> int:
        """The first instant behind `after_ms`."""
        return self.newest_ms(after_ms) + self.period_s * 1000

    def newest_ms(self, at_ms: int) -> int:
        """The last instant that is not behind `at_ms`."""
        offset_ms, period_ms = self.offset_s * 1000, self.period_s * 1000
        return (at_ms - offset_ms) // period_ms * period_ms + offset_ms

    def is_owed(self, last_ms: int, wall_ms: int) -> bool:
        """Whether an instant has passed since `last_ms`; a last time in the future says nothing, so it is owed too."""
        return self.newest_ms(wall_ms) > last_ms or last_ms > wall_ms


def rhythms(store_id: str, *, look_s: int | None, backup_hour: int | None) -> Mapping[str, Rhythm]:
    """
    What a store does by the clock.

    Args:
        look_s: how often it looks for price changes; None: nobody is notified of any.
        backup_hour: of UTC; None: no backups.
    """
    spread_s = int.from_bytes(blake2b(store_id.encode(), digest_size=4).digest()) % SPREAD_S
    found = {
        CHECKPOINT: Rhythm(300),
        VERIFY: Rhythm(DAY_S, 2 * HOUR_S + 1_800 + spread_s),
        PRUNE: Rhythm(DAY_S, 4 * HOUR_S + spread_s),
    }
    if look_s is not None:
        found[ACTIVATE] = Rhythm(look_s)
    if backup_hour is not None:
        found[BACKUP] = Rhythm(DAY_S, backup_hour * HOUR_S + spread_s)
    return found


class ClockWatch:
    """Compares the wall clock with one that cannot be set, from look to look."""

    def __init__(self, wall_ms: int, mono_ms: int) -> None:
        self._offset_ms = wall_ms - mono_ms

    def jump_ms(self, wall_ms: int, mono_ms: int) -> int:
        """How far the clock was set since the last look; 0 for what is no jump."""
        offset_ms = wall_ms - mono_ms
        jump_ms, self._offset_ms = offset_ms - self._offset_ms, offset_ms
        return jump_ms if abs(jump_ms) > JUMP_MS else 0
