"""With many streams a turn does a bounded share, and an idle one looks at none of them."""

import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.collect.inbox import StoreInbox
from hq.core.changes import Change
from hq.master.connection import connect
from hq.master.store import Master, random_epoch
from hq.node import Node, Options
from hq.publish.publication import Publication
from hq.publish.publisher import WORK_PER_TURN
from hq.publish.send_window import MESSAGES_MAX
from storelink.contract.contexts import BUILT_IN
from storelink.contract.messages import Message
from storelink.contract.streams import Stream
from storelink.transport.memory import MemoryBroker, MemoryLink
from storelink.transport.port import LinkEvent

START_MS = 1_767_225_600_000
STREAMS = 300
TURN_MS = 20
HEARTBEAT_MS = 60_000


class CountingLink(MemoryLink):
    """Remembers what is published."""

    published: list[Message]

    def publish(self, message: Message) -> int:
        token = super().publish(message)
        if "/head/-/" not in message.topic:
            self.published.append(message)
        return token


class Hq:
    """An HQ with many scopes at a broker in memory."""

    def __init__(self, directory: Path, streams: int) -> None:
        Master.create(directory / "hq.db", BUILT_IN, START_MS)
        self.connection = connect(directory / "hq.db", "rw")
        self.master = Master(directory / "hq.db", BUILT_IN, self.connection, random_epoch)
        with self.master.writing():
            for index in range(streams):
                self.put(index, 100)
        self.publication = Publication.open(directory / "hq.published.db")
        self.inbox = StoreInbox.open(directory / "hq.inbox.db")
        self.events: deque[LinkEvent] = deque()
        self.broker = MemoryBroker(random.Random(1))
        self.link = CountingLink(self.broker, "hq", self.events.append)
        self.link.published = []
        self.mono_ms = 0
        options = Options(heartbeat_ms=HEARTBEAT_MS)
        self.node = Node.assemble("t", self.master, self.publication, self.inbox, self.link, self.next_event, options)
        self.link.start()

    def next_event(self) -> LinkEvent | None:
        return self.events.popleft() if self.events else None

    def put(self, index: int, amount: int) -> None:
        change = Change(("4011", "regular"), ("EUR", f"[[0,null,{amount}]]"))
        self.master.commit(stream_of(index), [change], START_MS)

    def turn(self, step_ms: int = TURN_MS) -> list[Message]:
        """One turn, a moment later; returns what it published."""
        self.mono_ms += step_ms
        self.broker.advance(self.mono_ms)
        self.link.published.clear()
        self.node.turn(self.mono_ms, START_MS + self.mono_ms)
        return list(self.link.published)

    def are_published(self) -> bool:
        rows = self.master.streams()
        return all(self.publication.position(row.stream, row.epoch).seq == row.head_seq for row in rows)

    def settle(self) -> None:
        """Publish all, and let what is looked at now and then after a start be over."""
        for _ in range(2_000):
            self.turn()
            if self.mono_ms > 10_000 and self.are_published():
                return
        raise AssertionError("not all of it is published")

    def close(self) -> None:
        self.master.close()
        self.publication.close()
        self.inbox.connection.close()


def stream_of(index: int) -> Stream:
    return Stream.parse(f"price/store-{index:05}", BUILT_IN)


@pytest.fixture
def hq(tmp_path: Path) -> Iterator[Hq]:
    found = Hq(tmp_path, STREAMS)
    yield found
    found.close()


def test_no_turn_of_the_first_publication_does_more_than_its_share(hq: Hq) -> None:
    most = 0
    while not hq.are_published():
        most = max(most, len(hq.turn()))
        assert hq.mono_ms < 60_000
    # What of live batches has room in the window, and a heartbeat and a head of each stream of the turn's share.
    assert 0 < most <= MESSAGES_MAX + 2 * WORK_PER_TURN


def test_a_live_batch_goes_before_the_heads_of_many_streams(hq: Hq) -> None:
    hq.settle()
    for index in range(STREAMS):
        hq.put(index, 200)
    live: set[str] = set()
    while len(live) < STREAMS:
        live |= {message.topic for message in hq.turn() if "/live/" in message.topic}
    last = STREAMS - 1
    hq.put(last, 300)
    while f"t/live/{stream_of(last)}" not in {message.topic for message in hq.turn()}:
        pass
    rows = [row for row in hq.master.streams() if hq.publication.position(row.stream, row.epoch).seq < row.head_seq]
    assert len(rows) > STREAMS // 2
    hq.settle()


def test_an_idle_turn_takes_no_more_steps_of_sqlite_with_many_streams(tmp_path: Path) -> None:
    taken = []
    for count in (2, STREAMS):
        directory = tmp_path / f"{count}"
        directory.mkdir()
        hq = Hq(directory, count)
        hq.settle()
        steps = 0

        def count_step() -> None:
            nonlocal steps
            steps += 1

        hq.connection.set_progress_handler(count_step, 1)
        for _ in range(50):
            assert hq.turn() == []
        taken.append(steps)
        hq.close()
    assert taken[1] == taken[0]


def test_each_stream_has_its_heartbeat_though_nothing_changes(hq: Hq) -> None:
    hq.settle()
    heard: dict[str, int] = {}
    until_ms = hq.mono_ms + 2 * HEARTBEAT_MS
    while hq.mono_ms < until_ms:
        for message in hq.turn(100):
            heard[message.topic] = heard.get(message.topic, 0) + 1
    assert set(heard) == {f"t/live/{row.stream}" for row in hq.master.streams()}
    assert set(heard.values()) == {2}
