"""How available the catalog was: intervals of a stream's states, and what they come to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

DOWN = "daemon_down"
"""The state of a stream that nobody followed."""

USABLE = ("live", "catching_up", "offline", "rebuilding")
"""States in which readers have a complete catalog, if an older one. While the daemon is down it stays as it was."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A stream was in one state from `from_ms` until just before `until_ms`."""

    stream: str
    state: str
    from_ms: int
    until_ms: int

    @property
    def length_ms(self) -> int:
        return self.until_ms - self.from_ms


@dataclass(frozen=True, slots=True)
class Availability:
    """One stream's intervals summed up.

    An outage is an unbroken time in which it was not live, for whatever reason. `longest`: from when to when.
    """

    recorded_ms: int
    states_ms: dict[str, int]
    usable_ms: int
    outages: int
    longest: tuple[int, int] | None

    def percent(self, part_ms: int) -> float | None:
        """What share of the recorded time; None where nothing is recorded. 100 is never the result of rounding."""
        if not self.recorded_ms:
            return None
        return part_ms * 100_000 // self.recorded_ms / 1000


def clipped(intervals: Iterable[Interval], since_ms: int, until_ms: int) -> list[Interval]:
    """Only what lies between two times, in order; intervals that touch and are of one state become one."""
    found: list[Interval] = []
    for each in sorted(intervals, key=lambda i: (i.from_ms, i.until_ms)):
        part = replace(each, from_ms=max(each.from_ms, since_ms), until_ms=min(each.until_ms, until_ms))
        if part.length_ms <= 0:
            continue
        if found and found[-1].state == part.state and found[-1].until_ms == part.from_ms:
            found[-1] = replace(found[-1], until_ms=part.until_ms)
        else:
            found.append(part)
    return found


def usable_after(intervals: Iterable[Interval], at_ms: int) -> bool:
    """Whether readers had a complete catalog at `at_ms`, by what was before."""
    states = [i.state for i in sorted(intervals, key=lambda i: i.from_ms) if i.from_ms < at_ms and i.state != DOWN]
    return bool(states) and states[-1] in USABLE


def summed(intervals: Sequence[Interval], *, usable: bool = False) -> Availability:
    """Sum up one stream's clipped intervals; `usable`: before them readers had a complete catalog."""
    states_ms: dict[str, int] = {}
    outages: list[tuple[int, int]] = []
    usable_ms = 0
    for each in intervals:
        states_ms[each.state] = states_ms.get(each.state, 0) + each.length_ms
        usable = usable if each.state == DOWN else each.state in USABLE
        usable_ms += each.length_ms if usable else 0
        if each.state == "live":
            continue
        if outages and outages[-1][1] == each.from_ms:
            outages[-1] = (outages[-1][0], each.until_ms)
        else:
            outages.append((each.from_ms, each.until_ms))
    longest = max(outages, key=lambda o: o[1] - o[0], default=None)
    return Availability(sum(states_ms.values()), states_ms, usable_ms, len(outages), longest)
