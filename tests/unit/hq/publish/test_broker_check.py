"""After a connect HQ finds what the broker lost or altered of its segments, and sends precisely that again."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hq.collect.inbox import StoreInbox
from hq.core.changes import Change
from hq.master.store import Master
from hq.node import Node, Options
from hq.publish.publication import Publication
from hq.publish.sizes import Sizes
from storelink.contract.contexts import BUILT_IN
from storelink.contract.messages import Message
from storelink.contract.streams import Stream
from storelink.transport.memory import MemoryBroker, MemoryLink
from storelink.transport.port import LinkEvent

PRICE = Stream.parse("price/all", BUILT_IN)
SMALL = Sizes(tail_bytes=200, segment_bytes=400, segment_rows=6, segment_rows_max=12)


class Site:
    """One HQ on a broker in memory."""

    def __init__(self, directory: Path) -> None:
        self.now_ms = 0
        self.broker = MemoryBroker(random.Random(1))
        self.broker.reconnect_ms_max = 0
        events: deque[LinkEvent] = deque()
        Master.create(directory / "hq.db", BUILT_IN, 0, lambda: 0)
        self.master = Master.open(directory / "hq.db", BUILT_IN, lambda: 0)
        link = MemoryLink(self.broker, "hq", events.append)
        self.node = Node.assemble(
            "t",
            self.master,
            Publication.open(directory / "p.db"),
            StoreInbox(directory / "i.db"),
            link,
            lambda: events.popleft() if events else None,
            Options(heartbeat_ms=10**9, sizes=SMALL),
        )
        link.start()

    def run(self, ms: int) -> None:
        end_ms = self.now_ms + ms
        while self.now_ms < end_ms:
            self.now_ms += 50
            self.broker.advance(self.now_ms)
            while self.node.turn(self.now_ms, self.now_ms):
                self.broker.advance(self.now_ms)

    def segments(self) -> dict[str, Message]:
        return {topic: m for topic, m in self.broker.retained.items() if topic.startswith("t/segment/price/")}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    found.run(3_000)
    for start in range(0, 60, 5):
        changes = [Change((str(n), "regular"), ("EUR", f"[[0,null,{n}]]")) for n in range(start, start + 5)]
        found.master.commit(PRICE, changes, 0)
        found.run(1_000)
    yield found
    found.master.close()


def test_a_segment_that_is_gone_or_altered_is_there_again_after_a_reconnect(site: Site) -> None:
    """Found by the torture of brokers: a store of mosquitto with flipped bytes kept the head and altered a segment."""
    before = site.segments()
    assert len(before) > 4
    first, second, *_ = before
    whole = site.broker.retained[second]
    site.broker.retained[second] = replace(whole, payload=whole.payload[:-1] + b"!")
    del site.broker.retained[first]
    site.broker.restart()
    site.run(20_000)
    assert site.segments() == before


def test_a_broker_that_kept_everything_is_sent_nothing(site: Site) -> None:
    before = {topic: id(message) for topic, message in site.broker.retained.items()}
    site.broker.restart()
    site.run(20_000)
    assert {topic: id(message) for topic, message in site.broker.retained.items()} == before
