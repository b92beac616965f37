"""The turn of HQ's loop does all that `hq run` is for; each test here fails if the turn drops one of its steps."""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from hq.collect.inbox import StoreInbox
from hq.core.changes import Change
from hq.master.store import Master
from hq.node import EVENTS_PER_TURN, REPORT_EVERY_MS, Node, Options
from hq.publish.publication import Publication, publication_path, read_published
from storelink.contract import contexts
from storelink.contract.contexts import BUILT_IN, Column, Context, Contexts
from storelink.contract.messages import Message
from storelink.contract.streams import Stream
from storelink.contract.upstream import Entry, OutboxBatch, encode_batch
from storelink.transport.memory import MemoryBroker, MemoryLink
from storelink.transport.port import Connected, LinkEvent, Received

PRICE = Stream(contexts.PRICE, "all")
START_MS = 1_767_225_600_000
STEP_MS = 50
KEPT_MS = 20_000
TAX = Context("tax", "taxes", (Column("tax_class"),), (Column("rate_bp", "integer"),))


def batch(seq: int) -> Message:
    outbox = OutboxBatch("s", "019b76da1000-0c0ffee0", seq, seq, seq - 1, [Entry(seq, "sale", START_MS, "{}")])
    return encode_batch("t", outbox, START_MS)


class Hq:
    """A node on a broker in memory, and a store's ear at the same broker."""

    def __init__(self, directory: Path, declared: Contexts = BUILT_IN) -> None:
        self.path, self.mono_ms = directory / "hq.db", 0
        Master.create(self.path, BUILT_IN, START_MS)
        self.master = Master.open(self.path, declared)
        self.inbox = StoreInbox(directory / "hq.inbox.db")
        self.publication = Publication.open(publication_path(self.path))
        self.events: deque[LinkEvent] = deque()
        self.broker = MemoryBroker(random.Random(1))
        self.link = MemoryLink(self.broker, "hq", self.events.append)
        options = Options(
            head_interval_ms=100,
            heartbeat_ms=1_000,
            tombstones_kept_ms=KEPT_MS,
            entries_kept_ms=KEPT_MS,
            prune_every_ms=500,
        )
        self.node = Node.assemble("t", self.master, self.publication, self.inbox, self.link, self.next_event, options)
        self.heard: list[Message] = []
        self.store = MemoryLink(self.broker, "store", self._hear)
        self.link.start()
        self.store.start()

    def next_event(self) -> LinkEvent | None:
        return self.events.popleft() if self.events else None

    def _hear(self, event: LinkEvent) -> None:
        match event:
            case Connected():
                self.store.subscribe(["t/live/+/+", "t/store/s/ack"])
            case Received(message):
                self.heard.append(message)
            case _:
                pass

    def run(self, ms: int) -> list[str]:
        """Let time pass; returns the topics of what the store heard."""
        self.heard.clear()
        until_ms = self.mono_ms + ms
        while self.mono_ms < until_ms:
            self.mono_ms += STEP_MS
            self.broker.advance(self.mono_ms)
            while self.node.turn(self.mono_ms, START_MS + self.mono_ms):
                self.broker.advance(self.mono_ms)
        return [message.topic for message in self.heard]

    def put(self, amount: int | None) -> None:
        values = None if amount is None else ("EUR", f"[[0,null,{amount}]]")
        self.master.commit(PRICE, [Change(("1", "regular"), values)], START_MS + self.mono_ms)

    def close(self) -> None:
        self.master.close()
        self.publication.close()
        self.inbox.connection.close()


@pytest.fixture
def hq(tmp_path: Path) -> Iterator[Hq]:
    found = Hq(tmp_path)
    found.run(3_000)
    yield found
    found.close()


def test_a_turn_publishes_what_was_committed(hq: Hq) -> None:
    hq.put(100)
    assert "t/live/price/all" in hq.run(500)
    assert read_published(hq.path)["streams"]["price/all"]["published"] == 1


def test_a_turn_takes_in_and_acknowledges_what_a_store_sends(hq: Hq) -> None:
    hq.store.publish(batch(1))
    assert "t/store/s/ack" in hq.run(500)
    assert hq.inbox.through("s", "019b76da1000-0c0ffee0") == 1


def test_a_turn_stops_collecting_where_nothing_may_be_published(hq: Hq) -> None:
    foreign = hq.broker.retained["t/head/price/all"]
    theirs = {
        "id": foreign.attributes["id"].replace(foreign.attributes["id"].partition("/")[0], "0f00deadbeef-00000000")
    }
    hq.store.publish(Message(foreign.topic, b"{}", True, foreign.content_type, theirs))
    hq.run(500)
    hq.store.publish(batch(1))
    assert hq.run(500) == []
    assert sorted(read_published(hq.path)["foreign"]) == ["price/all"]


def test_a_turn_prunes_tombstones_and_entries_once_nothing_is_to_be_sent(hq: Hq) -> None:
    hq.put(100)
    hq.put(None)
    hq.store.publish(batch(1))
    hq.run(500)
    hq.run(KEPT_MS * 2)
    row = hq.master.stream(PRICE)
    assert row is not None
    assert (row.head_seq, row.floor) == (2, 2)
    hq.run(600_000)
    assert hq.inbox.connection.execute("SELECT count(*) FROM entries").fetchone() == (0,)


def test_a_turn_reports_to_other_processes_at_once_and_every_two_seconds(hq: Hq) -> None:
    before = read_published(hq.path)
    assert (before["pid"], before["connected"]) == (os.getpid(), True)
    hq.run(REPORT_EVERY_MS + STEP_MS)
    assert read_published(hq.path)["seen_at_ms"] > before["seen_at_ms"]
    hq.broker.cut("hq")
    hq.run(STEP_MS)
    assert not read_published(hq.path)["connected"]
    hq.node.stop(START_MS)
    assert read_published(hq.path)["pid"] is None


def test_a_turn_logs_a_context_that_is_left_out_once(tmp_path: Path) -> None:
    hq = Hq(tmp_path, BUILT_IN.with_declared((TAX,)))
    hq.close()
    hq.master = Master.open(hq.path, BUILT_IN)
    hq.node = Node.assemble(
        "t",
        hq.master,
        Publication.open(publication_path(hq.path)),
        StoreInbox(tmp_path / "hq.inbox.db"),
        hq.link,
        hq.next_event,
        Options(),
    )
    with capture_logs() as logs:
        hq.run(5_000)
    assert [entry["context"] for entry in logs if entry["event"] == "context.left_out"] == ["tax"]
    hq.master.close()


def test_events_beyond_one_turn_are_taken_in_by_the_next_at_once(hq: Hq) -> None:
    message = Message("t/elsewhere", b"")
    hq.events.extend([Received(message)] * (EVENTS_PER_TURN + 1))
    assert hq.node.turn(hq.mono_ms, START_MS)
    hq.node.turn(hq.mono_ms, START_MS)
    assert not hq.events


def test_events_behind_one_whose_answer_cannot_be_sent_are_taken_in_at_once(hq: Hq) -> None:
    hq.link.close()
    hq.events.extend([Connected(9), Received(Message("t/elsewhere", b""))])
    assert hq.node.turn(hq.mono_ms, START_MS)
    assert not hq.node.turn(hq.mono_ms, START_MS)
    assert not hq.events
