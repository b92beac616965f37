"""Which segments to rewrite: a pure function over what is retained, what of it is still live, and the tail.

Two reasons to rewrite, and the order of seq is always kept, so the segments go on covering 1..sealed:

- *stale*: of what a segment retains, a third or more has moved on. It is rewritten alone, where it stands;
- *small*: neighbours whose live rows fit into one segment are joined, the older at most twice the newer (as in
  a binary counter) or both tiny - but only if the outcome is at most a quarter of all that is live behind it.

The quarter is for a store that comes back. It needs everything newer than its position anyway; where a join
reaches across the position, what the store has already and fetches again is at most a quarter of that. So a large
old segment is never rewritten with the few new rows behind it, and a store that follows refetches next to nothing.

A segment is immutable under its name, its range. So one that is rewritten alone comes out as two halves, and what
would need a name that is taken has to wait; both are the caller's business (hq.publish.stream_publisher).

Bounds, when nothing is left to do (F: rows of a full segment; tests/unit/hq/core/test_segment_plan.py tries to
break them):

- retained rows stay below 1.5 times the live rows, so retained bytes stay below twice what the live rows need
  unless the rows that moved on were a third larger than those that stayed;
- a store at any position retrieves at most 1.5 * (1.25 * what it lacks + F) rows;
- rewriting copies at most 2 rows for each row that moved on (a stale segment holds at most two live rows for each
  that left it) and F rows for each segment that sealing or halving made (each join takes one of them away).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NEWER_SHARE = 4
"""A join's outcome is at most one part in so many of what is live behind it."""

ALWAYS_SHARE = 32
"""An outcome of at most one part in so many of a full segment is joined wherever it stands."""

TINY_SHARE = 8
"""Neighbours of together at most one part in so many of a full segment are joined whatever their proportion."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """
    A sealed segment: rows it retains, and rows of it that are still the newest of their entity.

    `filled`: the share of a full segment's bytes that its live rows take, by the tighter of the bounds on size. It is
    exact where all rows live, so what once came out in parts for its size is not joined again and again.
    """

    first: int
    last: int
    retained: int
    live: int
    filled: float = 0.0


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Replace the adjacent segments that cover `first..last` by one made from the master, or a single one by halves."""

    first: int
    last: int


def rewrites(segments: Sequence[Sealed], rows_per_segment: int, tail_rows: int = 0) -> list[Rewrite]:
    """
    Plan rewrites, oldest first; their ranges never overlap.

    Args:
        segments: adjacent, in order of seq.
        rows_per_segment: rows that fill one segment.
        tail_rows: live rows behind the last segment.
    """
    newer = tail_rows + sum(segment.live for segment in segments)
    stack: list[tuple[Sealed, int]] = []
    for segment in segments:
        newer -= segment.live
        stack.append((segment, 1))
        while len(stack) > 1 and _joined(stack[-2][0], stack[-1][0], rows_per_segment, newer):
            right, count = stack.pop()
            left, left_count = stack.pop()
            outcome = Sealed(
                left.first,
                right.last,
                left.retained + right.retained,
                left.live + right.live,
                left.filled + right.filled,
            )
            stack.append((outcome, left_count + count))
    return [Rewrite(s.first, s.last) for s, count in stack if count > 1 or _is_stale(s)]


def _is_stale(segment: Sealed) -> bool:
    dead = segment.retained - segment.live
    return dead > 0 and 2 * dead >= segment.live


def _joined(older: Sealed, newer: Sealed, rows_per_segment: int, behind: int) -> bool:
    """Whether two neighbours become one; `behind`: live rows newer than both."""
    live = older.live + newer.live
    if live > rows_per_segment or older.filled + newer.filled > 1:
        return False
    if older.live > 2 * newer.live and live * TINY_SHARE > rows_per_segment:
        return False
    return live * NEWER_SHARE <= behind or live * ALWAYS_SHARE <= rows_per_segment
