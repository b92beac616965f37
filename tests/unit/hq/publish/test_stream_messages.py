"""Each row of a stream is sealed once, and sealing comes to rest."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from hq.collect.inbox import StoreInbox
from hq.core.changes import Change
from hq.master.store import Master
from hq.node import Node, Options
from hq.publish.publication import BrokerPosition, Publication
from hq.publish.sizes import Sizes
from hq.publish.stream_messages import StreamMessages
from storelink.contract.contexts import BUILT_IN
from storelink.contract.limits import BODY_BYTES_MAX
from storelink.contract.messages import decode_head, decode_segment
from storelink.contract.streams import Stream
from storelink.transport.memory import MemoryBroker, MemoryLink
from storelink.transport.port import LinkEvent

PRICE = Stream.parse("price/all", BUILT_IN)


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    Master.create(tmp_path / "hq.db", BUILT_IN, 0)
    with Master.open(tmp_path / "hq.db", BUILT_IN) as found:
        yield found


def messages_of(master: Master, path: Path, sizes: Sizes) -> tuple[StreamMessages, Publication]:
    publication = Publication.open(path)
    epoch = next(row.epoch for row in master.streams() if row.stream == PRICE)
    return StreamMessages.load(PRICE, "t", master, publication, epoch, sizes), publication


def price(sku: int, amount: int) -> Change:
    return Change((str(sku), "regular"), ("EUR", f"[[0,null,{amount}]]"))


def test_rows_that_exactly_fill_a_segment_leave_no_empty_one_behind(master: Master, tmp_path: Path) -> None:
    """The range goes on behind its last live row: sku 9 was in it and has moved on."""
    messages, publication = messages_of(master, tmp_path / "p.db", Sizes(10, 100_000, 4, 4))
    moved = [price(9, 2), *(price(sku, 1) for sku in range(20, 35))]
    for changes in ([price(0, 1), price(1, 1)], [price(2, 1), price(3, 1), price(9, 1)], moved):
        master.commit(PRICE, changes, 0)
        live = next(row for row in master.streams() if row.stream == PRICE)
        while messages.next_live(live):
            pass
        while not messages.segments.seal(0, 8):
            pass
    assert [(s.first, s.last, s.rows) for s in publication.segments(PRICE, messages.epoch)] == [
        (1, 5, 4),
        (6, 9, 4),
        (10, 13, 4),
        (14, 17, 4),
        (18, 21, 4),
    ]


def test_segments_and_head_together_hold_every_row_once(master: Master, tmp_path: Path) -> None:
    messages, publication = messages_of(master, tmp_path / "p.db", Sizes(200, 2_000, 20, 50))
    for start in range(0, 300, 30):
        master.commit(PRICE, [price(sku % 170, start + 1) for sku in range(start, start + 30)], 0)
        while not messages.segments.seal(0, 8):
            pass
    made = messages.head(0)
    assert made is not None
    head = decode_head("t", made[0], BUILT_IN)
    found = {}
    for ref in head.segments:
        message = publication.message(PRICE, messages.epoch, (ref.first, ref.last))
        assert message is not None
        found.update({row[1]: row for row in decode_segment("t", message, BUILT_IN).rows})
    found.update({row[1]: row for row in head.tail_rows})
    assert found == {row[1]: row for row in master.live_rows(PRICE).values()}


def test_a_publication_with_a_hole_is_sealed_anew(master: Master, tmp_path: Path) -> None:
    sizes = Sizes(10, 100_000, 4, 4)
    messages, publication = messages_of(master, tmp_path / "p.db", sizes)
    for sku in range(0, 12, 4):
        master.commit(PRICE, [price(sku + n, 1) for n in range(4)], 0)
        messages.segments.seal(0, 8)
    made = messages.head(0)
    assert made is not None
    messages.acked_head(made[1])
    publication.connection.execute("DELETE FROM segments WHERE first = 5")
    again, publication = messages_of(master, tmp_path / "p.db", sizes)
    assert again.position == BrokerPosition(again.epoch, 0, "", 0)
    while not again.segments.seal(0, 8):
        pass
    assert [(s.first, s.last) for s in publication.segments(PRICE, again.epoch)] == [(1, 4), (5, 8), (9, 12)]


@pytest.mark.parametrize("seed", range(5))
def test_a_segment_is_immutable_under_its_name_until_that_is_cleared(master: Master, tmp_path: Path, seed: int) -> None:
    """Nothing is cleared here, so no name may ever stand for other bytes, however often its rows move on."""
    rng = random.Random(seed)
    messages, publication = messages_of(master, tmp_path / "p.db", Sizes(100, 600, 8, 16))
    bytes_of: dict[tuple[int, int], str] = {}
    for _ in range(150):
        skus = range(rng.randrange(60), 60) if rng.random() < 0.1 else (rng.randrange(60) for _ in range(6))
        master.commit(PRICE, [price(sku, rng.randrange(999)) for sku in skus], 0)
        row = next(row for row in master.streams() if row.stream == PRICE)
        while messages.next_live(row):
            pass
        while not messages.segments.seal(0, 1):
            pass
        for ref in publication.segments(PRICE, messages.epoch):
            if ref.first < ref.last:
                assert bytes_of.setdefault((ref.first, ref.last), ref.sha256) == ref.sha256
    retained = sum(ref.rows for ref in publication.segments(PRICE, messages.epoch))
    assert retained <= 2 * 60 + 16


def fill(publication: Publication, epoch: str, count: int) -> None:
    """Put so many segments of one row into a publication, each full by its size before compression."""
    spans = [(str(PRICE), epoch, seq, seq) for seq in range(1, count + 1)]
    publication.connection.executemany(
        "INSERT INTO segments VALUES(?, ?, ?, ?, 1, 1, 3145728, ?, 't/x', 1, NULL)",
        [(*span, sha256(bytes(span[2])).hexdigest()) for span in spans],
    )
    publication.connection.executemany("INSERT INTO payloads VALUES(?, ?, ?, ?, NULL, '{}', x'00')", spans)


def test_a_tail_leaves_room_for_the_list_of_segments_before_compression_too(master: Master, tmp_path: Path) -> None:
    """Alone, this tail would fit; with what the head lists besides it would not, though all of it travels as 60 kB."""
    messages, publication = messages_of(master, tmp_path / "p.db", Sizes())
    master.commit(PRICE, [price(sku, 1) for sku in range(1_000)], 0)
    fill(publication, messages.epoch, 1_000)
    messages, publication = messages_of(master, tmp_path / "p.db", Sizes())
    steps = ",".join(f"[{1_700_000_000 + n},{1_700_000_001 + n},100]" for n in range(64))
    count = (BODY_BYTES_MAX - 50_000) // (len(steps) + 40)
    same = [Change((f"x{sku:06}", "regular"), ("EUR", f"[{steps}]")) for sku in range(count)]
    master.commit(PRICE, same, 0)
    while not messages.segments.seal(0, 8):
        pass
    made = messages.head(0)
    assert made is not None
    head = decode_head("t", made[0], BUILT_IN)
    assert (head.seq, len(head.segments) > 1_000) == (1_000 + count, True)


def test_more_segments_than_a_head_can_list_are_told_of_and_not_tried_without_a_pause(
    master: Master, tmp_path: Path
) -> None:
    """Each is full by its size before compression, so none are joined; `hq run` once tried again at once, for ever."""
    messages, publication = messages_of(master, tmp_path / "p.db", Sizes())
    master.commit(PRICE, [price(sku, 1) for sku in range(4_000)], 0)
    fill(publication, messages.epoch, 4_000)
    broker, events = MemoryBroker(random.Random(1)), deque[LinkEvent]()
    link = MemoryLink(broker, "hq", events.append)
    link.start()
    inbox = StoreInbox(tmp_path / "i.db")
    options = Options(heartbeat_ms=10_000)
    node = Node.assemble("t", master, publication, inbox, link, lambda: events.popleft() if events else None, options)
    turns = 0
    with capture_logs() as logs:
        for now_ms in range(0, 60_000, 50):
            broker.advance(now_ms)
            while node.turn(now_ms, now_ms) and turns < 1_000:
                broker.advance(now_ms)
                turns += 1
    logged = [entry for entry in logs if entry["event"] == "head.oversized"]
    assert 1 <= len(logged) <= 6
    assert turns < 1_000
