"""When a store says how it stands, and what it says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from storelink.contract.contexts import BUILT_IN
from storelink.contract.messages import Message
from storelink.contract.rows import row_hash, to_hex
from storelink.contract.status import OutboxStatus, Status, StreamStatus, decode_status
from storelink.contract.streams import Stream
from storelink.transport.memory import MemoryBroker, MemoryLink
from storelink.transport.port import Connected, Disconnected, NotConnected
from storenode.outbox.status_publisher import EVERY_MS, StatusPublisher, last_will
from storenode.replica.writer import Replica

EPOCH = "019b76da1000-5f3c9a01"
OUTBOX = OutboxStatus(EPOCH, 2, 6, 1)


class Recorder(MemoryLink):
    """A link whose publishes are looked at and go nowhere."""

    def __init__(self) -> None:
        super().__init__(MemoryBroker(random.Random(0)), "s", lambda _: None)
        self.said: list[Status] = []
        self.up = True

    def publish(self, message: Message) -> int:
        if not self.up:
            raise NotConnected("down")
        assert message.retain
        self.said.append(decode_status("t", message))
        return len(self.said)


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    replica = Replica.open(tmp_path / "replica.db", ("price/all",), BUILT_IN)
    yield replica
    replica.connection.close()


def test_it_is_said_on_connect_on_a_change_of_state_and_every_minute(replica: Replica) -> None:
    link = Recorder()
    announcer = StatusPublisher("t", "s", replica.connection, BUILT_IN, link)
    announcer.step(("bootstrapping",), OUTBOX, 0, 1)
    assert link.said == [], "the line is down"
    announcer.handle(Connected(1), 10)
    announcer.step(("bootstrapping",), OUTBOX, 10, 1)
    announcer.step(("bootstrapping",), OUTBOX, 20, 1)
    assert len(link.said) == 1
    announcer.step(("live",), OUTBOX, 30, 1)
    assert len(link.said) == 2
    announcer.step(("live",), OUTBOX, 29 + EVERY_MS, 1)
    assert len(link.said) == 2
    announcer.step(("live",), OUTBOX, 30 + EVERY_MS, 1)
    assert len(link.said) == 3
    announcer.handle(Disconnected("cut"), 0)
    announcer.step(("offline",), OUTBOX, 10 * EVERY_MS, 1)
    assert len(link.said) == 3
    announcer.handle(Connected(2), 10 * EVERY_MS)
    announcer.step(("offline",), OUTBOX, 10 * EVERY_MS, 1)
    assert len(link.said) == 4


def test_it_says_what_the_replica_and_the_outbox_hold(replica: Replica) -> None:
    row = (1, "4011", "regular", "EUR", "[[1700000000,null,199]]")
    digest = to_hex(row_hash(row))
    price = Stream.parse("price/all", BUILT_IN)
    replica.apply(
        price, epoch=EPOCH, position=1, digest=digest, head_seq=1, batches=[([row], [])], replace=False, wall_ms=5
    )
    replica.set_verified(price, ok=True, at_ms=6)
    link = Recorder()
    announcer = StatusPublisher("t", "s", replica.connection, BUILT_IN, link)
    announcer.handle(Connected(1), 10)
    announcer.step(("live",), OUTBOX, 10, 77, -340)
    (said,) = link.said
    assert (said.store, said.state, said.at_ms, said.outbox, said.skew_ms) == ("s", "live", 77, OUTBOX, -340)
    assert said.streams == {"price/all": StreamStatus("live", EPOCH, 1, digest, True)}
    assert said.versions.keys() == {"storenode", "sqlite"}


def test_a_clean_stop_and_the_will_say_the_same_and_a_dead_line_does_not_hold_it_up(replica: Replica) -> None:
    link = Recorder()
    announcer = StatusPublisher("t", "s", replica.connection, BUILT_IN, link)
    announcer.leave(9)
    assert link.said == [Status("s", "offline", 9)] == [decode_status("t", last_will("t", "s", 9))]
    link.up = False
    announcer.leave(9)
