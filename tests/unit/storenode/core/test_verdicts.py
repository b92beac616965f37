"""Every cell of the intake's table, and what a head asks of a replica."""

from __future__ import annotations

import pytest

from storelink.contract.contexts import BUILT_IN
from storelink.contract.messages import Head, Live, SegmentRef
from storelink.contract.streams import Stream
from storenode.core.verdicts import AHEAD, Advance, CatchUp, Fork, Gap, Position, Repeat, Stale, UpToDate, judge, plan

PRICE = Stream.parse("price/all", BUILT_IN)
OLD, EPOCH, NEW = ("0" * 12 + "-" + c * 8 for c in "123")
AT_7 = Position(EPOCH, 7, "7" * 32)
NEVER = Position(None, 0, "0" * 32)


def live(first: int, last: int, *, before: str = "7", after: str = "9", epoch: str = EPOCH) -> Live:
    return Live(PRICE, epoch, first, last, before * 32, after * 32, True, 0)


def head(seq: int, *, digest: str = "9", epoch: str = EPOCH, floor: int = 0, sealed: tuple[int, ...] = ()) -> Head:
    refs = tuple(SegmentRef(a + 1, b, b - a, 10, "a" * 64) for a, b in zip((0, *sealed), sealed, strict=False))
    return Head(PRICE, epoch, seq, digest * 32, 0, floor, 0, refs, (), ())


@pytest.mark.parametrize(
    ("batch", "verdict"),
    [
        (live(8, 9), Advance()),
        (live(6, 9, before="5"), Advance()),
        (live(6, 7, before="5", after="7"), Repeat(current=True)),
        (live(8, 7, after="7"), Repeat(current=True)),
        (live(3, 5), Repeat(current=False)),
        (live(8, 9, epoch=OLD), Repeat(current=False)),
        (live(9, 9), Gap(8)),
        (live(10, 9), Gap(9)),
        (live(8, 9, before="6"), Fork("prev_digest")),
        (live(6, 7, after="6"), Fork("digest")),
        (live(8, 7, before="6", after="6"), Fork("digest")),
        (live(1, 1, epoch=NEW), Fork("epoch")),
    ],
)
def test_a_replica_at_7_judges(batch: Live, verdict: object) -> None:
    assert judge(AT_7, batch) == verdict


def test_a_replica_that_never_was_asks_for_everything() -> None:
    assert judge(NEVER, live(1, 3)) == Gap(3)


def test_a_catch_up_needs_exactly_the_segments_that_end_behind_the_position() -> None:
    found = plan(AT_7, head(30, sealed=(5, 10, 20)))
    assert isinstance(found, CatchUp)
    assert ([(s.first, s.last) for s in found.needed], found.replace) == ([(6, 10), (11, 20)], None)


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        (head(7, digest="7"), UpToDate()),
        (head(5), UpToDate()),
        (head(9, epoch=OLD), Stale()),
    ],
)
def test_a_head_without_news_asks_nothing(described: Head, expected: object) -> None:
    assert plan(AT_7, described) == expected


@pytest.mark.parametrize(
    ("reason", "found"),
    [
        ("bootstrap", plan(NEVER, head(7, sealed=(5,)))),
        ("digest", plan(AT_7, head(7, digest="6", sealed=(5,)))),
        ("epoch", plan(AT_7, head(9, epoch=NEW, sealed=(5,)))),
        ("floor", plan(AT_7, head(20, floor=8, sealed=(5,)))),
        ("scan", plan(AT_7, head(20, sealed=(5,)), rebuild_due="scan")),
        ("scan", plan(AT_7, head(7, digest="7", sealed=(5,)), rebuild_due="scan")),
        ("ahead", plan(AT_7, head(6, sealed=(5,)), rebuild_due=AHEAD)),
        ("ahead", plan(AT_7, head(6, epoch=OLD, sealed=(5,)), rebuild_due=AHEAD)),
    ],
)
def test_what_cannot_be_continued_is_rebuilt_from_the_first_segment(reason: str, found: object) -> None:
    assert isinstance(found, CatchUp)
    assert (found.replace, found.needed[0].first) == (reason, 1)


def test_a_replica_to_be_rebuilt_never_goes_back_in_time() -> None:
    """HQ's heads lag behind its live batches: one that the broker kept may be older than what is served."""
    assert plan(AT_7, head(6, sealed=(5,)), rebuild_due="scan") == Stale()
    assert plan(AT_7, head(6, sealed=(5,)), rebuild_due="epoch") == Stale()


def test_a_head_older_than_a_known_gap_is_stale() -> None:
    assert plan(AT_7, head(9), missing_to=10) == Stale()
