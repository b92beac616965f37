"""The turn of a node: each of its steps, seen from outside; a turn that drops one fails here."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from storelink.contract import contexts
from storelink.contract.limits import BATCH_ENTRIES_MAX
from storelink.contract.messages import Head, Live, Message, encode_head, encode_live
from storelink.contract.rows import EMPTY, row_hash, to_hex
from storelink.contract.status import Status, decode_status
from storelink.contract.streams import Stream, head_topic
from storelink.contract.upstream import Ack, decode_batch, encode_ack
from storelink.host.sqlite import open_readonly
from storelink.transport.memory import MemoryBroker, MemoryLink
from storelink.transport.port import Connected, Disconnected, LinkEvent, Received, Subscribed, check_size
from storenode.config import Settings
from storenode.core.availability import DOWN
from storenode.core.clock_rules import SETTLED_MS, SETTLED_SAMPLES
from storenode.follow.follower import HEAD_TIMEOUT_MS
from storenode.jobs import rebuild_request
from storenode.jobs.availability import intervals
from storenode.node import EVENTS_PER_TURN, HEARTBEAT_EVERY_MS, JOBS_WAIT_MS, WAL_BYTES_TARGET
from storenode.outbox.overrides import put
from storenode.outbox.store import Outbox
from tests.nodes import NodeInMemory

PRICE, EPOCH, WALL_MS = Stream(contexts.PRICE, "all"), "019b76da1000-5f3c9a01", 1_767_225_660_000
ROW = (1, "4011", "regular", "EUR", "[[0,null,199]]")
DIGEST = to_hex(row_hash(ROW))


class Store:
    """A node that follows prices alone; HQ is what a test publishes."""

    def __init__(self, directory: Path, *scopes: str) -> None:
        self.settings = Settings(db=directory / "replica.db", store_id="s", root="t", scopes=scopes or ("price/all",))
        self.broker = MemoryBroker(random.Random(1))
        self.broker.reconnect_ms_max = 0
        self.at_hq: list[Message] = []
        self.hq = MemoryLink(self.broker, "hq", self._hear)
        self.hq.start()
        self.broker.advance(0)
        self.hq.subscribe(["t/store/s/outbox", "t/store/s/status"])
        self.begin(0)

    def _hear(self, event: LinkEvent) -> None:
        if isinstance(event, Received):
            self.at_hq.append(event.message)

    def status_at_hq(self) -> Status:
        """The newest."""
        return [decode_status("t", m) for m in self.at_hq if m.topic == "t/store/s/status"][-1]

    def begin(self, mono_ms: int) -> None:
        self.mono_ms = mono_ms
        self.node = NodeInMemory(self.settings, self.broker, "s", wall_ms=WALL_MS, mono_ms=mono_ms)

    def run(self, ms: int = 500, *, woken: bool = False) -> bool:
        """Turn every 100 ms; returns what the last turn did."""
        more = False
        for _ in range(ms // 100):
            self.mono_ms += 100
            self.broker.advance(self.mono_ms)
            more = self.node.turn(self.mono_ms, woken=woken)
        return more

    def announce(self, stream: Stream = PRICE) -> None:
        """HQ has nothing in a stream yet."""
        message = encode_head("t", Head(stream, EPOCH, 0, EMPTY, 0, 0, WALL_MS, (), (), ()))
        self.broker.retained[message.topic] = message

    def asked(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        with closing(open_readonly(self.settings.db, 1.0)) as db:
            return db.execute(sql, values).fetchall()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path)
    yield found
    found.node.crash()


@pytest.fixture
def live(store: Store) -> Store:
    store.announce()
    store.run()
    assert store.node.router.is_settled
    return store


def test_what_the_link_brings_is_applied_in_the_same_turn(live: Store) -> None:
    live.node.events.put(
        Received(encode_live("t", Live(PRICE, EPOCH, 1, 1, EMPTY, DIGEST, True, WALL_MS, (ROW,), (), ((),))))
    )
    live.node.turn(live.mono_ms + 1)
    assert live.asked("SELECT sku, position FROM prices, streams WHERE stream = 'price/all'") == [("4011", 1)]


def test_a_head_that_does_not_come_is_asked_for_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.run()
    asked: list[str] = []
    monkeypatch.setattr(store.node.link, "subscribe", asked.extend)
    store.run(HEAD_TIMEOUT_MS)
    assert asked == [head_topic("t", PRICE)]


def test_what_readers_may_know_of_a_stream_is_written_down(live: Store) -> None:
    live.broker.cut("s")
    live.run()
    assert live.asked("SELECT state FROM streams WHERE stream = 'price/all'") == [("offline",)]


def test_an_append_is_sent_in_the_turn_that_it_wakes_and_removed_once_hq_has_it(live: Store) -> None:
    with Outbox(live.settings.outbox_path) as outbox:
        outbox.append("t", 7, WALL_MS)
        live.node.turn(live.mono_ms + 1, woken=True)
        live.broker.advance(live.mono_ms + 200)
        (batch,) = (decode_batch("t", m) for m in live.at_hq if m.topic == "t/store/s/outbox")
        assert [(entry.seq, entry.data) for entry in batch.entries] == [(1, "7")]
        live.hq.publish(encode_ack("t", Ack("s", batch.outbox, 1), WALL_MS))
        live.run()
        assert outbox.after(0, 10) == ([], [])


def test_an_entry_that_the_broker_does_not_take_holds_up_the_next_ones_for_no_turn(
    live: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Outbox(live.settings.outbox_path) as outbox:
        outbox.append("t", "".join(chr(0x4E00 + n) for n in range(3_000)), WALL_MS)
        outbox.append("t", 7, WALL_MS)
    publish = live.node.link.publish

    def strict(message: Message) -> int:
        check_size(message, 2_000)
        return publish(message)

    monkeypatch.setattr(live.node.link, "publish", strict)
    live.node.turn(live.mono_ms + 1, woken=True)
    live.broker.advance(live.mono_ms + 200)
    sent = [decode_batch("t", m) for m in live.at_hq if m.topic == "t/store/s/outbox"]
    assert [entry.data for batch in sent for entry in batch.entries] == ["7"]


def test_many_entries_are_sent_in_one_turn(live: Store) -> None:
    with Outbox(live.settings.outbox_path) as outbox:
        for number in range(2 * BATCH_ENTRIES_MAX):
            outbox.append("t", number, WALL_MS)
    live.node.turn(live.mono_ms + 1, woken=True)
    live.broker.advance(live.mono_ms + 200)
    assert len([m for m in live.at_hq if m.topic == "t/store/s/outbox"]) > 1


def test_hq_gets_the_status_on_connect_and_when_a_state_changes(store: Store) -> None:
    store.run()
    assert store.status_at_hq().streams["price/all"].state == "bootstrapping"
    store.announce()
    store.run(HEAD_TIMEOUT_MS + 1_000)
    found = store.status_at_hq()
    assert (found.streams["price/all"].state, found.outbox and found.outbox.pending) == ("live", 0)


def test_the_stores_own_price_is_in_the_replica_after_the_turn_that_it_wakes(live: Store) -> None:
    with Outbox(live.settings.outbox_path) as outbox:
        put(outbox, "4011", 99, "EUR", WALL_MS // 1000 + 60, "ripe", WALL_MS)
    live.node.turn(live.mono_ms + 1, woken=True)
    assert live.asked("SELECT sku, kind FROM prices") == [("4011", "override")]


def test_the_stores_own_price_is_in_the_replica_before_the_first_turn(live: Store) -> None:
    with Outbox(live.settings.outbox_path) as outbox:
        put(outbox, "4011", 99, "EUR", WALL_MS // 1000 + 60, "ripe", WALL_MS)
    live.node.crash()
    live.begin(live.mono_ms)
    assert live.asked("SELECT sku, kind FROM prices") == [("4011", "override")]


def test_a_stream_that_is_followed_no_longer_goes_once_another_takes_its_place(live: Store) -> None:
    live.node.crash()
    live.settings = replace(live.settings, scopes=("price/zone-east",))
    live.begin(live.mono_ms)
    live.run()
    scopes = "SELECT scope FROM scopes ORDER BY scope"
    assert live.asked(scopes) == [("all",), ("zone-east",)], "nothing takes its place yet"
    live.announce(Stream(contexts.PRICE, "zone-east"))
    live.run(HEAD_TIMEOUT_MS + 1_000)
    assert live.asked(scopes) == [("zone-east",)]


def test_what_was_asked_of_the_writer_is_done(live: Store) -> None:
    """A rebuild that a command asks for is seen within a second, and done without a line too."""
    live.broker.cut("s")
    rebuild_request.ask(live.settings.db, [PRICE])
    live.run(1_500)
    assert rebuild_request.asked(live.settings.db) == []


def test_the_availability_log_has_every_state(live: Store) -> None:
    live.run(2_000)
    live.broker.cut("s")
    live.run(2_000)
    with closing(open_readonly(live.settings.outbox_path, 1.0)) as db:
        found = [each.state for each in intervals(db)]
    assert (found[0], found[-2:]) == ("bootstrapping", ["live", "offline"])


def test_the_availability_log_says_that_the_daemon_was_down_from_its_last_heartbeat_on(live: Store) -> None:
    live.run(2 * HEARTBEAT_EVERY_MS)
    ((seen_at_ms,),) = live.asked("SELECT seen_at_ms FROM daemon")
    live.node.crash()
    live.begin(live.mono_ms + 30_000)
    live.run(2_000)
    with closing(open_readonly(live.settings.outbox_path, 1.0)) as db:
        (down,) = [each for each in intervals(db) if each.state == DOWN]
    assert (down.from_ms, down.until_ms - WALL_MS) == (seen_at_ms, live.mono_ms - 1_900)


def test_a_daemon_that_starts_is_seen_before_its_first_turn(store: Store) -> None:
    assert store.asked("SELECT pid, connected, started_at_ms FROM daemon") == [(os.getpid(), 0, WALL_MS)]


def test_the_heartbeat_is_written_every_two_seconds_and_when_the_line_changes(live: Store) -> None:
    live.run(2 * HEARTBEAT_EVERY_MS)
    (found,) = live.asked("SELECT pid, connected, started_at_ms, seen_at_ms, counters FROM daemon")
    assert found[:3] == (os.getpid(), 1, WALL_MS)
    assert WALL_MS + live.mono_ms - HEARTBEAT_EVERY_MS < int(str(found[3])) <= WALL_MS + live.mono_ms
    live.node.events.dropped = 3
    live.node.events.put(Disconnected("cut"))
    live.node.turn(live.mono_ms + 1)
    connected, seen_at_ms, counters = live.asked("SELECT connected, seen_at_ms, counters FROM daemon")[0]
    assert (connected, seen_at_ms) == (0, WALL_MS + live.mono_ms + 1)
    assert json.loads(str(counters))["dropped"] == 3


def test_the_clock_is_judged_by_what_hq_says_and_hq_hears_of_it(live: Store) -> None:
    for _ in range(SETTLED_SAMPLES + 1):
        at_ms = WALL_MS + live.mono_ms - 60_000
        live.hq.publish(encode_live("t", Live(PRICE, EPOCH, 1, 0, EMPTY, EMPTY, True, at_ms)))
        live.run(SETTLED_MS // SETTLED_SAMPLES + 100)
    live.run(HEARTBEAT_EVERY_MS)
    ((skew_ms,),) = live.asked("SELECT skew_ms FROM clock")
    assert 59_000 < int(str(skew_ms)) < 61_000
    live.run(61_000)
    assert live.status_at_hq().skew_ms == skew_ms


def test_a_wall_clock_that_somebody_sets_is_judged_in_the_same_turn(live: Store) -> None:
    live.hq.publish(encode_live("t", Live(PRICE, EPOCH, 1, 0, EMPTY, EMPTY, True, WALL_MS + live.mono_ms)))
    live.run(HEARTBEAT_EVERY_MS + 100)
    live.node.node.turn(live.mono_ms, WALL_MS + live.mono_ms + 3_600_000, woken=False)
    assert live.asked("SELECT wall_ms FROM clock") == [(WALL_MS + live.mono_ms + 3_600_000,)]


def test_a_log_that_has_grown_is_moved_into_the_file(live: Store) -> None:
    live.run(HEARTBEAT_EVERY_MS)
    db = live.node.replica.connection
    db.execute("CREATE TABLE IF NOT EXISTS filler (x)")
    db.execute("INSERT INTO filler VALUES (zeroblob(?))", (WAL_BYTES_TARGET + 1,))
    before = live.settings.db.stat().st_size
    live.run(HEARTBEAT_EVERY_MS)
    assert live.settings.db.stat().st_size - before > WAL_BYTES_TARGET


def test_the_schedule_starts_once_the_store_is_live_or_after_five_seconds(tmp_path: Path, store: Store) -> None:
    store.run(JOBS_WAIT_MS - 200)
    assert not store.node.commands.begun
    store.run(300)
    assert store.node.commands.begun
    store.node.crash()
    store.announce()
    store.begin(store.mono_ms)
    store.run(1_000)
    assert store.node.commands.begun


def test_the_search_index_is_fed_while_no_event_waits(tmp_path: Path) -> None:
    found = Store(tmp_path, "product/all")
    stream = Stream(contexts.PRODUCT, "all")
    row = (1, "4011", None, "Banana", *(None,) * 10)
    head = Head(stream, EPOCH, 1, to_hex(row_hash(row)), 1, 0, WALL_MS, (), (row,), ())
    found.node.turn(1)
    found.node.events.put(Connected(1))
    for _ in range(EVENTS_PER_TURN - 1):
        found.node.events.put(Subscribed(()))
    found.node.events.put(Received(encode_head("t", head)))
    found.node.events.put(Subscribed(()))
    assert found.node.turn(2), "an event waits"
    assert not found.node.replica.is_search_ready() or found.node.router.followers[stream].position.seq == 0
    found.run()
    assert found.asked("SELECT sku FROM product_search('banana')") == [("4011",)]
    found.node.crash()


def test_a_turn_takes_a_bounded_number_of_events_and_says_that_there_are_more(store: Store) -> None:
    for _ in range(EVENTS_PER_TURN + 1):
        store.node.events.put(Subscribed(()))
    assert (store.node.turn(1), len(store.node.events)) == (True, 1)
    assert (store.node.turn(2), len(store.node.events)) == (False, 0)


def test_a_line_that_breaks_within_a_turn_stops_nothing_else(live: Store) -> None:
    live.node.link.close()  # its Disconnected does not come: a status that is due cannot be sent
    live.run(65_000)
    assert live.asked("SELECT seen_at_ms > ? FROM daemon", WALL_MS + live.mono_ms - HEARTBEAT_EVERY_MS) == [(1,)]


def test_a_node_that_is_stopping_takes_no_further_event(store: Store) -> None:
    store.node.events.put(Subscribed(()))
    store.node.events.put(Subscribed(()))
    store.node.node.stopping = True
    store.node.turn(1)
    assert len(store.node.events) > 0


def test_a_clean_stop_is_told_to_hq_to_readers_and_to_the_availability_log(live: Store) -> None:
    live.run(2_000)
    assert live.node.commands.begun
    live.node.node.stop(WALL_MS + live.mono_ms + 700)
    assert not live.node.commands.begun, "the schedule ends"
    live.broker.advance(live.mono_ms + 200)
    assert live.status_at_hq().state == "offline"
    assert live.node.replica.wal_bytes() == 0, "what a reader opens is in one file"
    assert live.asked("SELECT pid, connected FROM daemon") == [(None, 0)]
    with closing(open_readonly(live.settings.outbox_path, 1.0)) as db:
        assert intervals(db)[-1].until_ms == WALL_MS + live.mono_ms + 700
