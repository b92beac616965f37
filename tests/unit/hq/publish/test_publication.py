"""The publication forgets what was replaced, and nothing else."""

from __future__ import annotations

from pathlib import Path

from hq.publish.publication import Publication
from storelink.contract.contexts import BUILT_IN
from storelink.contract.messages import Message, SegmentRef
from storelink.contract.streams import Stream

PRICE = Stream.parse("price/all", BUILT_IN)
EPOCH = "0" * 12 + "-" + "1" * 8


def add(publication: Publication, first: int, last: int, now_ms: int) -> None:
    ref = SegmentRef(first, last, 1, 1, "a" * 64)
    publication.add(PRICE, EPOCH, [(ref, Message(f"t/segment/price/all/{first}-{last}", b"x", True))], now_ms)


def ranges(publication: Publication) -> list[tuple[int, int]]:
    return [(s.first, s.last) for s in publication.segments(PRICE, EPOCH)]


def test_a_late_acknowledgement_of_a_clearing_does_not_remove_a_segment_sealed_again(tmp_path: Path) -> None:
    """
    Simulation, seed 402 of 2026-11-24: a range was retired and its topic cleared; before the broker acknowledged
    that, the range was sealed again and the acknowledgement removed it. After a restart the head had a hole.
    """
    publication = Publication.open(tmp_path / "p.db")
    add(publication, 1, 4, 0)
    add(publication, 1, 8, 1)
    assert publication.retired(PRICE, 2) == [(EPOCH, 1, 4, "t/segment/price/all/1-4")]
    add(publication, 1, 4, 2)
    publication.remove(PRICE, EPOCH, (1, 4))
    assert (1, 4) in ranges(publication)


def test_a_retired_segment_is_forgotten_when_its_topic_is_cleared(tmp_path: Path) -> None:
    publication = Publication.open(tmp_path / "p.db")
    add(publication, 1, 4, 0)
    add(publication, 1, 8, 1)
    publication.remove(PRICE, EPOCH, (1, 4))
    assert (ranges(publication), publication.retired(PRICE, 9)) == ([(1, 8)], [])
