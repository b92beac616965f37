"""Which segments to rewrite into one: a pure function over what is retained and what is still live.

Two adjacent segments are merged when what is live of them fits into one, and either at least half of what
they retain has moved on, or the older is at most twice the newer (small ones pair up as in a binary counter).

Bounds: no two neighbours remain that retain at least twice what is live of them and would fit into one;
so the retained rows stay below twice the live rows plus one segment. A rewrite for rows that moved on
copies at most as many rows as moved; a rewrite for size copies each row at most log2(rows of a full segment) times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed segment: rows it retains, and rows of it that are still the newest of their entity."""

    first: int
    last: int
    retained: int
    live: int


@dataclass(frozen=True, slots=True)
class Merge:
    """Rewrite the adjacent segments `first..last` into one."""

    first: int
    last: int


def merges(segments: Sequence[Sealed], rows_per_segment: int) -> list[Merge]:
    """Plan rewrites, oldest first; the ranges of the result never overlap."""
    stack: list[tuple[Sealed, int]] = []
    for segment in segments:
        stack.append((segment, 1))
        while len(stack) > 1 and _worthwhile(stack[-2][0], stack[-1][0], rows_per_segment):
            newer, count = stack.pop()
            older, older_count = stack.pop()
            joined = Sealed(older.first, newer.last, older.retained + newer.retained, older.live + newer.live)
            stack.append((joined, older_count + count))
    return [Merge(s.first, s.last) for s, count in stack if count > 1]


def _worthwhile(older: Sealed, newer: Sealed, rows_per_segment: int) -> bool:
    live = older.live + newer.live
    if live > rows_per_segment:
        return False
    return older.retained + newer.retained >= 2 * live or older.live <= 2 * newer.live
