"""An outlet seals each row once and comes to rest."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.core.changes import Change
from hq.master.store import Master
from hq.publish.publication import Publication
from hq.publish.stream_publisher import Sizes, StreamPublisher
from storelink.contract.contexts import BUILT_IN
from storelink.contract.messages import decode_head, decode_segment
from storelink.contract.streams import Stream

PRICE = Stream.parse("price/all", BUILT_IN)


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    with Master(tmp_path / "hq.db", BUILT_IN) as found:
        found.create(0)
        yield found


def outlet_of(master: Master, path: Path, sizes: Sizes) -> tuple[StreamPublisher, Publication]:
    publication = Publication(path)
    epoch = next(row.epoch for row in master.streams() if row.stream == PRICE)
    return StreamPublisher(PRICE, "t", master, publication, epoch, sizes), publication


def price(sku: int, amount: int) -> Change:
    return Change((str(sku), "regular"), ("EUR", f"[[0,null,{amount}]]"))


def test_rows_that_exactly_fill_a_segment_leave_no_empty_one_behind(master: Master, tmp_path: Path) -> None:
    """The range goes on behind its last live row: sku 9 was in it and has moved on."""
    outlet, publication = outlet_of(master, tmp_path / "p.db", Sizes(10, 100_000, 4, 4))
    moved = [price(9, 2), *(price(sku, 1) for sku in range(20, 35))]
    for changes in ([price(0, 1), price(1, 1)], [price(2, 1), price(3, 1), price(9, 1)], moved):
        master.commit(PRICE, changes, 0)
        live = next(row for row in master.streams() if row.stream == PRICE)
        while outlet.next_live(live):
            pass
        while not outlet.seal(0, 8):
            pass
    assert [(s.first, s.last, s.rows) for s in publication.segments(PRICE, outlet.epoch)] == [
        (1, 5, 4),
        (6, 9, 4),
        (10, 13, 4),
        (14, 17, 4),
        (18, 21, 4),
    ]


def test_segments_and_head_together_hold_every_row_once(master: Master, tmp_path: Path) -> None:
    outlet, publication = outlet_of(master, tmp_path / "p.db", Sizes(200, 2_000, 20, 50))
    for start in range(0, 300, 30):
        master.commit(PRICE, [price(sku % 170, start + 1) for sku in range(start, start + 30)], 0)
        while not outlet.seal(0, 8):
            pass
    made = outlet.head(0)
    assert made is not None
    head = decode_head("t", made[0], BUILT_IN)
    found = {}
    for ref in head.segments:
        message = publication.message(PRICE, outlet.epoch, (ref.first, ref.last))
        assert message is not None
        found.update({row[1]: row for row in decode_segment("t", message, BUILT_IN).rows})
    found.update({row[1]: row for row in head.tail_rows})
    assert found == {row[1]: row for row in master.live_rows(PRICE).values()}


def test_a_publication_with_a_hole_is_sealed_anew(master: Master, tmp_path: Path) -> None:
    sizes = Sizes(10, 100_000, 4, 4)
    outlet, publication = outlet_of(master, tmp_path / "p.db", sizes)
    for sku in range(0, 12, 4):
        master.commit(PRICE, [price(sku + n, 1) for n in range(4)], 0)
        outlet.seal(0, 8)
    outlet.acked_head(12, "a" * 64)
    publication.connection.execute("DELETE FROM segments WHERE first = 5")
    again, publication = outlet_of(master, tmp_path / "p.db", sizes)
    assert (again.published, again.head_sha256) == (0, "")
    while not again.seal(0, 8):
        pass
    assert [(s.first, s.last) for s in publication.segments(PRICE, again.epoch)] == [(1, 4), (5, 8), (9, 12)]


@pytest.mark.parametrize("seed", range(5))
def test_a_segment_is_immutable_under_its_name_until_that_is_cleared(master: Master, tmp_path: Path, seed: int) -> None:
    """Nothing is cleared here, so no name may ever stand for other bytes, however often its rows move on."""
    rng = random.Random(seed)
    outlet, publication = outlet_of(master, tmp_path / "p.db", Sizes(100, 600, 8, 16))
    bytes_of: dict[tuple[int, int], str] = {}
    for _ in range(150):
        skus = range(rng.randrange(60), 60) if rng.random() < 0.1 else (rng.randrange(60) for _ in range(6))
        master.commit(PRICE, [price(sku, rng.randrange(999)) for sku in skus], 0)
        row = next(row for row in master.streams() if row.stream == PRICE)
        while outlet.next_live(row):
            pass
        while not outlet.seal(0, 1):
            pass
        for ref in publication.segments(PRICE, outlet.epoch):
            if ref.first < ref.last:
                assert bytes_of.setdefault((ref.first, ref.last), ref.sha256) == ref.sha256
    retained = sum(ref.rows for ref in publication.segments(PRICE, outlet.epoch))
    assert retained <= 2 * 60 + 16
