"""What a command or feed row asks of a price's schedule, and the schedule that results.

Nobody needs steps that are over, so a schedule that differs only in them has not changed. Times are seconds since 1970,
amounts are in the minor unit of the currency.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from storelink.contract import schedule
from storelink.contract.limits import STEPS_MAX
from storelink.contract.schedule import Schedule, Step

LATE_CLOCK_S = 300
"""A till whose clock is at most this far behind HQ's still finds the price that has just ended."""


class Wanted(NamedTuple):
    """A price asked for; `starts_at` None: from now on, or from `holds_from` on, unless it is that already."""

    amount_minor: int
    starts_at: int | None = None
    ends_at: int | None = None
    holds_from: int | None = None

    def over(self, now: int) -> bool:
        return self.ends_at is not None and self.ends_at <= now


def reprice(old: Schedule, wanted: Wanted, now: int) -> Schedule:
    """
    Put a wanted price into a schedule; return `old` itself if that changes nothing that is still to come.

    Raises:
        ContractViolation: it is over already, ends before it starts, or overlaps in a way that needs a decision.
    """
    starts_at = wanted.starts_at
    if starts_at is None:
        starts_at = now if wanted.holds_from is None else wanted.holds_from
        there = schedule.at(old, starts_at)
        if there is not None and there.amount_minor == wanted.amount_minor and wanted.ends_at in (None, there.ends_at):
            return old
    new = schedule.set_step(old, now, Step(starts_at, wanted.ends_at, wanted.amount_minor))
    return old if _to_come(new, now) == _to_come(old, now) else _with_recent(old, new, now)


def arrange(wanted: Sequence[Wanted], now: int) -> list[tuple[int, Wanted]]:
    """
    Order the wanted prices of one price line so that the same feed, read again later, changes nothing.

    An undated price is what holds around the dated ones. Once a dated one of the same feed is running, the
    undated price takes effect when that one ends, or never if it is open.

    Returns:
        (index in `wanted`, price to set), in the order to set them; those that are over are left out.
    """
    current = [(i, w) for i, w in enumerate(wanted) if not w.over(now)]
    dated = sorted(((i, w) for i, w in current if w.starts_at is not None), key=lambda each: each[1].starts_at or 0)
    undated = [(i, w) for i, w in current if w.starts_at is None]
    at: int | None = now
    running = 0
    for _, step in dated:
        if at is None or (step.starts_at or 0) > at:
            break
        at, running = step.ends_at, running + 1
    if at is None:
        return dated
    base = [(i, w._replace(holds_from=at)) for i, w in undated if not w.over(at)]
    return dated[:running] + base + dated[running:]


def overlap(wanted: Sequence[Wanted], now: int) -> tuple[int, int] | None:
    """Two prices of one feed, by index, of which one ends inside the other; only an open price gives way."""
    current = [(now if w.starts_at is None else w.starts_at, i) for i, w in enumerate(wanted) if not w.over(now)]
    closed: tuple[int, int] | None = None
    for starts_at, index in sorted(current):
        if wanted[index] == Wanted(wanted[index].amount_minor):
            continue
        if closed is not None and starts_at < closed[0]:
            return closed[1], index
        ends_at = wanted[index].ends_at
        closed = None if ends_at is None else (ends_at, index)
    return None


def _with_recent(old: Schedule, new: Schedule, now: int) -> Schedule:
    """Keep what ended a moment ago: a till whose clock is behind HQ's must still find a price."""
    recent = [s for s in old if s.over(now) and not s.over(now - LATE_CLOCK_S) and (s.ends_at or 0) <= new[0].starts_at]
    room = min(len(recent), STEPS_MAX - len(new))
    return (*recent[len(recent) - room :], *new)


def _to_come(steps: Schedule, now: int) -> Schedule:
    return tuple(step for step in steps if not step.over(now))
