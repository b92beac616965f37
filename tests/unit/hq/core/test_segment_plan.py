"""The segment plan keeps its bounds over random histories."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator

import pytest

from hq.core.segment_plan import Rewrite, Sealed, rewrites

FULL = 64
TAIL = 16


def test_small_neighbours_are_joined_when_enough_is_newer() -> None:
    small = [Sealed(1, 10, 10, 10), Sealed(11, 20, 10, 10)]
    assert rewrites([*small, Sealed(21, 80, 60, 60)], FULL, tail_rows=20) == [Rewrite(1, 20)]
    assert rewrites([*small, Sealed(21, 80, 60, 60)], FULL, tail_rows=19) == []


def test_full_segments_are_left_alone() -> None:
    assert rewrites([Sealed(1, 64, 64, 64), Sealed(65, 128, 64, 64)], FULL, 1_000) == []


def test_a_stale_segment_is_rewritten_alone_and_not_with_the_large_one_before_it() -> None:
    assert rewrites([Sealed(1, 40, 40, 40), Sealed(41, 70, 30, 20)], FULL, 10) == [Rewrite(41, 70)]
    assert rewrites([Sealed(1, 40, 40, 40), Sealed(41, 70, 30, 21)], FULL, 10) == []


def test_segments_of_which_nothing_lives_become_one() -> None:
    assert rewrites([Sealed(1, 40, 40, 0), Sealed(41, 70, 30, 0), Sealed(71, 90, 20, 20)], FULL) == [Rewrite(1, 70)]


def test_neighbours_that_are_full_by_size_are_not_joined_however_few_their_rows() -> None:
    """Joined, they would come out in parts again, and be joined again, for ever."""
    behind = Sealed(21, 80, 60, 60, 0.2)
    assert rewrites([Sealed(1, 10, 10, 10, 0.5), Sealed(11, 20, 10, 10, 0.5), behind], FULL, 20) == [Rewrite(1, 20)]
    assert rewrites([Sealed(1, 10, 10, 10, 0.5), Sealed(11, 20, 10, 10, 0.6), behind], FULL, 20) == []


def test_an_empty_segment_stays_as_it_is() -> None:
    assert rewrites([Sealed(1, 40, 0, 0), Sealed(41, 104, 64, 64)], FULL) == []


class History:
    """Entities that change, sealed as HQ does; the oracle counts live rows from the entities alone."""

    def __init__(self) -> None:
        self.seq = 0
        self.entity_at: dict[int, int] = {}
        self.tail: set[int] = set()
        self.segments: list[list[int]] = []  # first, last, retained, live
        self.copied = self.moved = self.made = 0

    def change(self, entity: int) -> None:
        self.seq += 1
        old = self.entity_at.get(entity, 0)
        if old:
            self.moved += 1
            if old in self.tail:
                self.tail.remove(old)
            else:
                self.segments[bisect_right(self.segments, old, key=lambda s: s[0]) - 1][3] -= 1
        self.entity_at[entity] = self.seq
        self.tail.add(self.seq)

    def publish(self) -> None:
        while len(self.tail) > TAIL:
            rows = sorted(self.tail)[:FULL]
            last = rows[-1] if len(rows) == FULL else self.seq
            self.segments.append([self.sealed + 1, last, len(rows), len(rows)])
            self.tail -= set(rows)
            self.made += 1
        while plan := rewrites([Sealed(*s) for s in self.segments], FULL, len(self.tail)):
            for rewrite in plan:
                self._rewrite(rewrite)

    def _rewrite(self, rewrite: Rewrite) -> None:
        inside = [i for i, s in enumerate(self.segments) if rewrite.first <= s[0] and s[1] <= rewrite.last]
        rows = sum(self.segments[i][3] for i in inside)
        assert (self.segments[inside[0]][0], self.segments[inside[-1]][1]) == (rewrite.first, rewrite.last)
        assert len(inside) == 1 or rows <= FULL
        made = [[rewrite.first, rewrite.last, rows, rows]]
        if len(inside) == 1 and rewrite.first < rewrite.last:
            self.made += 1
            seqs = sorted(s for s in self.entity_at.values() if rewrite.first <= s <= rewrite.last)
            middle = seqs[len(seqs) // 2 - 1] if len(seqs) > 1 else (rewrite.first + rewrite.last) // 2
            left = sum(s <= middle for s in seqs)
            made = [[rewrite.first, middle, left, left], [middle + 1, rewrite.last, rows - left, rows - left]]
        self.segments[inside[0] : inside[-1] + 1] = made
        self.copied += rows

    @property
    def sealed(self) -> int:
        return self.segments[-1][1] if self.segments else 0

    def retrieved(self, position: int) -> int:
        return sum(s[2] for s in self.segments if s[1] > position) + len(self.tail)

    def lacked(self, position: int) -> int:
        return sum(seq > position for seq in self.entity_at.values())


Pattern = Callable[[random.Random], Iterator[int]]


def inserts_mostly(rng: random.Random) -> Iterator[int]:
    known = 0
    while True:
        known += 1
        yield known if rng.random() < 0.9 else rng.randrange(known) + 1


def a_few_again_and_again(rng: random.Random) -> Iterator[int]:
    yield from range(2_000)
    while True:
        yield rng.randrange(100)


def a_few_in_turn(rng: random.Random) -> Iterator[int]:
    yield from range(2_000)
    while True:
        yield from range(0, 2_000, 10)


def everything_over_and_over(rng: random.Random) -> Iterator[int]:
    while True:
        yield from range(1_000)


def anything(rng: random.Random) -> Iterator[int]:
    entities = rng.choice((20, 200, 1_500))
    while True:
        yield rng.randrange(entities)


def hot_and_cold_by_turns(rng: random.Random) -> Iterator[int]:
    while True:
        start = rng.randrange(1_500)
        yield from range(start, start + rng.randrange(300))
        yield from (rng.randrange(40) for _ in range(rng.randrange(300)))


def one_that_lasts_in_many(rng: random.Random) -> Iterator[int]:
    known = 1_000
    while True:
        known += 1
        yield known
        yield from (rng.randrange(60) for _ in range(20))


PATTERNS: list[Pattern] = [
    inserts_mostly,
    a_few_again_and_again,
    a_few_in_turn,
    everything_over_and_over,
    anything,
    hot_and_cold_by_turns,
    one_that_lasts_in_many,
]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_retained_retrieved_and_copied_is_bounded(pattern: Pattern, seed: int) -> None:
    rng = random.Random(seed)
    history, changes = History(), pattern(rng)
    per_head = rng.choice((5, 30, 200))
    while history.seq < 8_000:
        for _ in range(rng.randrange(1, 2 * per_head)):
            history.change(next(changes))
        history.publish()
        assert [s[0] for s in history.segments] == [1, *(s[1] + 1 for s in history.segments[:-1])][
            : len(history.segments)
        ]
        assert 2 * history.retrieved(0) <= 3 * len(history.entity_at) + TAIL
        position = rng.randrange(history.seq + 1)
        assert history.retrieved(position) <= 1.5 * (1.25 * history.lacked(position) + FULL)
        assert history.copied <= 2 * history.moved + FULL * history.made
    assert history.copied <= 4 * (history.moved + history.seq)
    assert len(history.segments) <= 8 + 5 * len(history.entity_at) // FULL


def test_a_store_that_missed_changes_of_a_fifth_of_the_prices_refetches_nothing_else() -> None:
    """Issue 3: 49,700 prices sealed, then 1,000,000 changes that touched 10,000 of them; here at one part in 235."""
    history = History()
    for entity in range(211):
        history.change(entity)
    history.publish()
    position = history.seq
    rng = random.Random(0)
    for n in range(4_000):
        history.change(rng.randrange(42))
        if n % 4 == 0:
            history.publish()
    assert history.lacked(position) == 42
    assert history.retrieved(position) <= 2 * 42
