"""A follower fed by hand: what a message does in a phase in which it is not expected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from storelink.contract import contexts
from storelink.contract.messages import (
    Head,
    Live,
    Message,
    Segment,
    SegmentRef,
    encode_head,
    encode_live,
    encode_segment,
)
from storelink.contract.rows import EMPTY, row_hash, to_hex
from storelink.contract.streams import Stream, head_topic, live_topic
from storelink.transport.port import Connected, Disconnected, Received
from storenode.core.phases import Phase
from storenode.follow.follower import Follower
from storenode.follow.router import Router
from storenode.follow.spool import MemorySpool
from storenode.replica.writer import Replica

PRICE, EPOCH, WALL_MS = Stream(contexts.PRICE, "all"), "019b76da1000-5f3c9a01", 1_767_225_660_000
HEAD, LIVE = head_topic("t", PRICE), live_topic("t", PRICE)


class Line:
    """A link that only remembers what is subscribed to."""

    connected = True

    def __init__(self) -> None:
        self.subscribed: set[str] = set()

    def start(self) -> None: ...
    def close(self) -> None: ...
    def publish(self, message: Message) -> int:
        raise AssertionError(message)

    def subscribe(self, topics: Sequence[str]) -> None:
        self.subscribed.update(topics)

    def unsubscribe(self, topics: Sequence[str]) -> None:
        self.subscribed.difference_update(topics)


class Store:
    """A router and what HQ would send it; the stream's row n is of sku n."""

    def __init__(self, path: Path) -> None:
        self.replica = Replica.open(path, ("price/all",), contexts.BUILT_IN)
        self.line = Line()
        self.router = Router.open("t", self.replica, lambda _: MemorySpool(), self.line, [PRICE])
        self.mono_ms = 0

    @property
    def follower(self) -> Follower:
        return self.router.followers[PRICE]

    def connect(self) -> None:
        self.line.subscribed.clear()
        self.router.handle(Disconnected("cut"), self.mono_ms, WALL_MS)
        self.router.handle(Connected(1), self.mono_ms, WALL_MS)

    def take(self, *messages: Message) -> None:
        for message in messages:
            self.mono_ms += 100
            self.router.handle(Received(message), self.mono_ms, WALL_MS + self.mono_ms)
        self.router.flush(WALL_MS + self.mono_ms)


def row(seq: int) -> tuple[int, str, str, str, str]:
    return (seq, str(seq), "regular", "EUR", "[[0,null,7]]")


def digest_at(seq: int) -> str:
    return to_hex(sum(row_hash(row(n)) for n in range(1, seq + 1))) if seq else EMPTY


def head(seq: int, *segments: Message) -> Message:
    """A head whose last row is its tail, or which has all its rows in segments."""
    refs = []
    for each in segments:
        first, last = map(int, each.topic.rpartition("/")[2].split("-"))
        refs.append(SegmentRef(first, last, last - first + 1, len(each.payload), sha256(each.payload).hexdigest()))
    tail = () if segments else (row(seq),)
    return encode_head("t", Head(PRICE, EPOCH, seq, digest_at(seq), seq, 0, WALL_MS, tuple(refs), tail, ()))


def segment(first: int, last: int) -> Message:
    return encode_segment("t", Segment(PRICE, EPOCH, first, last, [row(n) for n in range(first, last + 1)], ()), 0)


def live(seq: int) -> Message:
    return encode_live(
        "t", Live(PRICE, EPOCH, seq, seq, digest_at(seq - 1), digest_at(seq), True, WALL_MS, (row(seq),), (), ((),))
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "replica.db")
    yield found
    found.replica.connection.close()


def test_a_catch_up_goes_through_the_phases_and_asks_for_no_more_than_each_needs(store: Store) -> None:
    assert (store.follower.phase, store.line.subscribed) == (Phase.DOWN, set())
    store.connect()
    assert (store.follower.phase, store.line.subscribed) == (Phase.AWAITING_HEAD, {LIVE, HEAD})
    whole = segment(1, 3)
    store.take(head(3, whole))
    assert (store.follower.phase, store.line.subscribed) == (Phase.FETCHING, {LIVE, HEAD, whole.topic})
    store.take(live(4), whole)
    assert (store.follower.phase, store.line.subscribed) == (Phase.LIVE, {LIVE})
    assert store.follower.position.seq == 4, "a live batch waited for the catch-up"
    store.take(live(6))
    assert (store.follower.phase, store.line.subscribed) == (Phase.AWAITING_HEAD, {LIVE, HEAD})


def test_an_older_head_that_ends_a_catch_up_ends_its_fetch_too(store: Store) -> None:
    """A broker that came back with an older store shows an older head; the segments of the newer one still came, and
    were applied to a stream that had moved past them: the writer died of it."""
    store.connect()
    store.take(head(1))
    store.connect()
    newer = segment(1, 3)
    store.take(head(3, newer))
    assert store.follower.phase is Phase.FETCHING
    store.take(head(1))
    assert (store.follower.phase, store.line.subscribed) == (Phase.LIVE, {LIVE})
    store.take(live(2), live(3), live(4), newer)
    assert (store.follower.phase, store.follower.position.seq) == (Phase.LIVE, 4)
    assert store.router.counters["segments_dropped"] == 1


def test_a_message_in_a_phase_that_has_no_use_for_it_changes_nothing(store: Store) -> None:
    store.take(live(1), head(1))
    assert (store.follower.phase, store.follower.position.seq) == (Phase.DOWN, 0)
    store.connect()
    store.take(head(1), head(3, segment(1, 3)))
    assert (store.follower.phase, store.follower.position.seq, store.line.subscribed) == (Phase.LIVE, 1, {LIVE})
