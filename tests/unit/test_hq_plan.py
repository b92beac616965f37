"""The segment plan keeps its bounds over random histories."""

from __future__ import annotations

import random

import pytest

from hq.core.plan import Rewrite, Sealed, rewrites

FULL = 32


def test_small_neighbours_are_joined() -> None:
    assert rewrites([Sealed(1, 10, 10, 10), Sealed(11, 20, 10, 10)], FULL) == [Rewrite(1, 20)]


def test_full_segments_are_left_alone() -> None:
    assert rewrites([Sealed(1, 32, 32, 32), Sealed(33, 64, 32, 32)], FULL) == []


def test_segments_that_moved_on_are_joined_though_the_older_is_larger() -> None:
    assert rewrites([Sealed(1, 40, 32, 14), Sealed(41, 50, 10, 2)], FULL) == [Rewrite(1, 50)]


def test_a_large_old_segment_is_not_rewritten_for_a_small_new_one() -> None:
    assert rewrites([Sealed(1, 28, 28, 28), Sealed(29, 30, 2, 2)], FULL) == []


class History:
    """Entities that change at random, sealed in batches; counts what is retained and what was copied."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.seq = 0
        self.entity_at: dict[int, int] = {}
        self.segments: list[tuple[int, int, int]] = []
        self.copied = self.moved = 0

    def change(self, entities: int) -> None:
        for _ in range(self.rng.randrange(1, FULL)):
            entity = self.rng.randrange(entities)
            if entity in self.entity_at:
                self.moved += 1
            self.seq += 1
            self.entity_at[entity] = self.seq

    def live(self, first: int, last: int) -> int:
        return sum(first <= seq <= last for seq in self.entity_at.values())

    def seal(self) -> None:
        first = self.segments[-1][1] + 1 if self.segments else 1
        self.segments.append((first, self.seq, self.live(first, self.seq)))
        while plan := rewrites([Sealed(f, t, kept, self.live(f, t)) for f, t, kept in self.segments], FULL):
            for merge in plan:
                rows = self.live(merge.first, merge.last)
                inside = [i for i, s in enumerate(self.segments) if merge.first <= s[0] and s[1] <= merge.last]
                assert len(inside) > 1
                self.segments[inside[0] : inside[-1] + 1] = [(merge.first, merge.last, rows)]
                self.copied += rows


@pytest.mark.parametrize("seed", range(40))
def test_cover_is_contiguous_and_retained_and_copied_rows_are_bounded(seed: int) -> None:
    history = History(seed)
    entities = history.rng.choice((20, 200, 1_000))
    for _ in range(120):
        history.change(entities)
        history.seal()
        assert [s[0] for s in history.segments] == [1, *(s[1] + 1 for s in history.segments[:-1])]
        assert history.segments[-1][1] == history.seq
        retained = sum(kept for _, _, kept in history.segments)
        assert retained <= 2 * len(history.entity_at) + FULL
    assert history.copied <= history.moved + 6 * history.seq  # log2(FULL) + 1 copies for size, one for each move
