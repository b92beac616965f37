"""Two masters under one root: one that finds the other's heads on the broker publishes nothing over them."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from hq.collect.inbox import StoreInbox
from hq.core.changes import Change
from hq.master.backup import back_up, restore
from hq.master.store import Master
from hq.node import Node, Options
from hq.publish.broker_heads import RECONNECT_MS, REMIND_EVERY_MS, read_head
from hq.publish.publication import Publication
from hq.publish.sizes import Sizes
from storelink.contract import contexts
from storelink.contract.codec import JSON_TYPE, unpack
from storelink.contract.contexts import BUILT_IN
from storelink.contract.messages import Live, Message, decode_head, encode_live
from storelink.contract.streams import Stream
from storelink.contract.upstream import Entry, OutboxBatch, encode_batch
from storelink.transport.memory import MemoryBroker, MemoryLink
from storelink.transport.port import Connected, LinkEvent, Received

PRICE, ZONE = Stream(contexts.PRICE, "all"), Stream(contexts.PRICE, "zone-x")
START_MS = 1_767_225_600_000
SMALL = Sizes(tail_bytes=200, segment_bytes=400, segment_rows=6, segment_rows_max=12)
HEARTBEAT_MS = 1_000
STEP_MS = 50
BATCH = OutboxBatch("s", "019b76da1000-0c0ffee0", 1, 1, 0, [Entry(1, "sale", START_MS, "{}")])
_numbers = itertools.count(1)


class Site:
    """A broker, its clock, and whatever HQs run on it; hears everything."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now_ms = 0
        self.broker = MemoryBroker(random.Random(1))
        self.broker.reconnect_ms_max = 0
        self.running: list[Hq] = []
        self.heard: list[Message] = []
        self.ear = MemoryLink(self.broker, "ear", self._hear)
        self.ear.start()

    def _hear(self, event: LinkEvent) -> None:
        match event:
            case Connected():
                self.ear.subscribe(["t/#"])
            case Received(message) if not message.retain and not message.topic.startswith("t/head/-/"):
                self.heard.append(message)
            case _:
                pass

    def run(self, ms: int) -> list[Message]:
        """Let time pass; returns what was published meanwhile, but for fences."""
        self.heard.clear()
        end_ms = self.now_ms + ms
        while self.now_ms < end_ms:
            self.now_ms += STEP_MS
            self.broker.advance(self.now_ms)
            for hq in self.running:
                hq.turn(self.now_ms)
        return list(self.heard)

    def heads(self) -> dict[str, str]:
        """The epoch of each head that the broker keeps."""
        kept = {t.removeprefix("t/head/"): m for t, m in self.broker.retained.items() if t.startswith("t/head/")}
        return {name: read_head(message).epochs[0] for name, message in kept.items()}

    def clear_heads(self) -> None:
        """As a person does it at the broker."""
        for name in self.heads():
            self.ear.publish(Message(f"t/head/{name}", b"", True))


class Hq:
    """An HQ as `hq run` puts it together, on a master of its own, or on one that is there."""

    def __init__(
        self,
        site: Site,
        name: str,
        *,
        take_over: bool = False,
        master: Master | None = None,
        link: type[MemoryLink] = MemoryLink,
    ) -> None:
        number = next(_numbers)
        self.events: deque[LinkEvent] = deque()
        path = site.directory / f"{name}.db"
        if master is None:
            Master.create(path, BUILT_IN, START_MS + site.now_ms, lambda: number)
        self.master = master or Master.open(path, BUILT_IN, lambda: number)
        self.link = link(site.broker, f"hq-{number}", self.events.append)
        self.publication = Publication.open(site.directory / f"{name}.published.db")
        self.node = Node.assemble(
            "t",
            self.master,
            self.publication,
            StoreInbox(site.directory / f"{name}.inbox.db"),
            self.link,
            lambda: self.events.popleft() if self.events else None,
            Options(
                head_interval_ms=100,
                heartbeat_ms=HEARTBEAT_MS,
                segment_grace_ms=1_000,
                sizes=SMALL,
                take_over=take_over,
            ),
        )
        self.heads = self.node.publisher.heads
        self._site = site
        site.running.append(self)
        self.link.start()

    def turn(self, now_ms: int) -> None:
        while self.node.turn(now_ms, START_MS + now_ms):
            pass

    def stop(self) -> None:
        self._site.running.remove(self)
        self.link.close()

    def put(self, count: int, amount: int, stream: Stream = PRICE) -> None:
        changes = [Change((str(n), "regular"), ("EUR", f"[[0,null,{amount}]]")) for n in range(count)]
        self.master.commit(stream, changes, START_MS)

    def epochs(self) -> dict[str, str]:
        return {str(row.stream): row.epoch for row in self.master.streams()}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    for hq in found.running:
        hq.master.close()


@pytest.fixture
def ours(site: Site) -> Hq:
    """The chain's own HQ, all of it published."""
    found = Hq(site, "ours")
    found.put(50, 1)
    site.run(5_000)
    assert site.heads() == found.epochs()
    return found


def test_a_new_master_publishes_nothing_over_another_ones_heads_and_says_so(site: Site, ours: Hq) -> None:
    ours.stop()
    before = dict(site.broker.retained)
    with structlog.testing.capture_logs() as logs:
        theirs = Hq(site, "theirs")
        theirs.put(3, 2)
        assert site.run(60_000) == []
        said = [entry for entry in logs if entry["event"] == "heads.foreign"]
        assert len(said) == 1
        assert "hq run --take-over" in said[0]["hint"]
        assert ours.epochs()["price/all"] in said[0]["heads"]["price/all"]
        site.run(REMIND_EVERY_MS)
        assert len([entry for entry in logs if entry["event"] == "heads.foreign"]) == 2
    assert site.broker.retained == before
    assert {name: head.epochs[0] for name, head in theirs.heads.foreign.items()} == ours.epochs()
    theirs.put(3, 3)
    site.broker.restart()
    assert site.run(10_000) == []


def test_a_silent_one_goes_on_by_itself_when_the_heads_are_gone_and_stores_can_follow_it(site: Site, ours: Hq) -> None:
    theirs = Hq(site, "theirs")
    site.run(3_000)
    ours.stop()
    ours.master.new_epoch(PRICE, START_MS + 10**9)  # of a clock that is ahead
    ours = Hq(site, "ours", master=ours.master)
    site.run(5_000)
    ours.stop()
    assert theirs.heads.silent
    site.clear_heads()
    site.run(10_000)
    assert not theirs.heads.silent
    assert site.heads() == theirs.epochs()
    assert all(epoch > ours.epochs()[name] for name, epoch in site.heads().items())


def test_one_that_is_still_at_work_without_a_head_is_heard(site: Site, ours: Hq) -> None:
    """Its heads are on their way: a large catalog takes its time."""
    theirs = Hq(site, "theirs")
    site.run(3_000)
    site.running.remove(ours)  # it does not answer by itself any more, as one that is busy
    site.clear_heads()
    for _ in range(20):
        row = next(row for row in ours.master.streams() if row.stream == PRICE)
        empty = Live(PRICE, row.epoch, row.head_seq + 1, row.head_seq, row.digest, row.digest, True, START_MS)
        ours.link.publish(encode_live("t", empty))
        site.run(1_000)
    assert theirs.heads.silent
    site.run(5_000)
    assert not theirs.heads.silent


def test_take_over_publishes_once_and_the_other_falls_silent(site: Site, ours: Hq) -> None:
    ours.put(5, 7, ZONE)
    site.run(3_000)
    theirs = Hq(site, "theirs", take_over=True)
    theirs.put(3, 2)
    before = site.heads()
    site.run(10_000)
    heads = site.heads()
    assert {name: heads[name] for name in theirs.epochs()} == theirs.epochs()
    assert all(heads[name] > before[name] for name in theirs.epochs())
    assert ours.heads.silent
    assert not theirs.heads.silent
    ours.put(50, 9)
    names = {f"io.storenode.{kind}.v1" for kind in ("live", "head", "segment")}
    theirs_only = {m.attributes["id"].partition("/")[0] for m in site.run(30_000) if m.attributes.get("type") in names}
    assert theirs_only <= set(theirs.epochs().values())
    theirs.stop()
    again = Hq(site, "theirs", master=theirs.master)  # without the word: it has been said
    site.run(5_000)
    assert not again.heads.silent


def test_take_over_is_of_all_heads_also_where_they_come_late(site: Site, ours: Hq) -> None:
    ours.stop()
    before = dict(site.broker.retained)
    for seed in range(10):
        site.broker = MemoryBroker(random.Random(seed))
        site.broker.retained.update(before)
        site.broker.delay_ms_max, site.broker.reorder = 500, 1.0
        theirs = Hq(site, f"theirs-{seed}", take_over=True)
        site.run(15_000)
        assert not theirs.heads.silent, f"seed {seed}"
        assert site.heads() == theirs.epochs(), f"seed {seed}"
        theirs.stop()


def test_the_word_counts_for_what_is_there_when_it_is_said(site: Site, ours: Hq) -> None:
    """Of two that were both started with it, the later has it, and they do not take turns."""
    theirs = Hq(site, "theirs", take_over=True)
    site.run(5_000)
    ours.stop()
    again = Hq(site, "ours", take_over=True, master=ours.master)
    site.run(10_000)
    assert (theirs.heads.silent, again.heads.silent) == (True, False)
    assert site.heads() == again.epochs()
    site.broker.restart()
    site.run(10_000)
    assert (theirs.heads.silent, again.heads.silent) == (True, False)


def test_a_head_of_a_stream_that_the_master_does_not_have_counts(site: Site, ours: Hq) -> None:
    ours.put(5, 7, ZONE)
    site.run(3_000)
    ours.stop()
    for name in ("price/all", "product/all"):
        del site.broker.retained[f"t/head/{name}"]
    Hq(site, "theirs").put(3, 2)
    assert site.run(10_000) == []


def test_a_stream_that_is_new_here_waits_for_its_own_head(site: Site, ours: Hq) -> None:
    """One that the broker did not show among all heads: brokers cut long retained deliveries."""
    head = site.broker.retained["t/head/price/all"]
    foreign = replace(head, payload=head.payload[:-1], attributes={"id": "019c00000000-00000000/head/1/1"})
    site.broker.retained["t/head/price/zone-x"] = replace(foreign, topic="t/head/price/zone-x")
    ours.put(3, 3, ZONE)
    assert [m.topic for m in site.run(10_000) if m.topic.endswith("zone-x")] == []
    assert ours.heads.silent


@pytest.mark.parametrize("kind", ["undeclared context", "unreadable version"])
def test_a_head_that_cannot_be_read_here_counts(site: Site, ours: Hq, kind: str) -> None:
    ours.stop()
    head = site.broker.retained["t/head/price/all"]
    site.broker.retained.clear()
    if kind == "undeclared context":
        head = replace(head, topic="t/head/tax/all", attributes={})
    else:
        head = replace(head, payload=b"\x01\x02", content_type="application/cbor")
    site.broker.retained[head.topic] = head
    Hq(site, "theirs").put(3, 2)
    assert site.run(10_000) == []


def damaged(message: Message, how: str) -> Message:
    match how:
        case "cut":
            return replace(message, payload=message.payload[:-1])
        case "no id":
            return replace(message, attributes={})
        case "nobody's":
            return replace(message, payload=b"?", attributes={})
    at = message.payload.index(b'"epoch":"') + 9
    return replace(message, payload=message.payload[: at + 3] + b"f" + message.payload[at + 4 :])


@pytest.mark.parametrize("how", ["cut", "no id", "nobody's", "another epoch"])
def test_a_head_of_its_own_that_is_damaged_is_healed_without_a_word(site: Site, ours: Hq, how: str) -> None:
    topic = "t/head/product/all"
    whole = site.broker.retained[topic]
    site.broker.retained[topic] = damaged(whole, how)
    assert site.broker.retained[topic] != whole
    site.broker.restart()
    site.run(10_000)
    assert not ours.heads.silent
    assert site.heads() == ours.epochs()
    assert decode_head("t", site.broker.retained[topic], BUILT_IN).epoch == ours.epochs()["product/all"]


def test_a_head_that_is_cleared_while_it_runs_is_there_again(site: Site, ours: Hq) -> None:
    site.clear_heads()
    site.run(5_000)
    assert site.heads() == ours.epochs()


@pytest.mark.parametrize(("delay_ms_max", "reorder"), [(20_000, 0.0), (500, 1.0)], ids=["slow", "heads late"])
def test_nothing_is_published_before_the_heads_are_here(
    site: Site, ours: Hq, delay_ms_max: int, reorder: float
) -> None:
    """However slow the line is, and where a broker hands out what it keeps some time after what is live."""
    ours.stop()
    before = dict(site.broker.retained)
    for seed in range(10):
        site.broker = MemoryBroker(random.Random(seed))
        site.broker.retained.update(before)
        site.broker.delay_ms_max, site.broker.reorder = delay_ms_max, reorder
        theirs = Hq(site, f"theirs-{seed}")
        theirs.put(3, 2)
        site.run(60_000)
        assert site.broker.retained == before, f"seed {seed}"
        theirs.stop()


def test_a_broker_that_loses_its_disk_is_seeded_by_the_one_that_was_at_work(site: Site, ours: Hq) -> None:
    theirs = Hq(site, "theirs")
    site.run(3_000)
    site.broker.cut(ours.link.client_id)
    site.broker.restart(forget=True)
    site.run(RECONNECT_MS - 5_000)
    assert site.heads() == {}
    site.broker.heal(ours.link.client_id)
    site.run(RECONNECT_MS)
    assert site.heads() == ours.epochs()
    assert theirs.heads.silent


def test_a_silent_one_that_is_started_again_remembers_it(site: Site, ours: Hq) -> None:
    theirs = Hq(site, "theirs")
    site.run(3_000)
    foreign = theirs.heads.foreign
    theirs.publication.set_foreign((name, head.epochs[0], head.seq, head.at_ms) for name, head in foreign.items())
    theirs.stop()
    ours.stop()
    site.broker.retained.clear()
    again = Hq(site, "theirs", master=theirs.master)
    assert site.run(RECONNECT_MS) == []
    assert again.heads.silent
    site.run(5_000)
    assert site.heads() == again.epochs()


def test_one_whose_own_heads_are_back_waits_for_nobody(site: Site, ours: Hq) -> None:
    """As after a restore in the place of a master that was silent."""
    ours.stop()
    ours.publication.set_foreign([("price/all", "019c00000000-00000000", 1, START_MS)])
    again = Hq(site, "ours", master=ours.master)
    site.run(5_000)
    assert not again.heads.silent
    assert site.heads() == again.epochs()


def test_one_that_may_not_read_all_heads_publishes_nothing_and_says_so(site: Site) -> None:
    class Forbidden(MemoryLink):
        def subscribe(self, topics: Sequence[str]) -> None:
            super().subscribe([topic for topic in topics if topic != "t/head/+/+"])

    with structlog.testing.capture_logs() as logs:
        Hq(site, "theirs", link=Forbidden).put(3, 2)
        assert site.run(60_000) == []
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == ["heads.unseen"]


def test_a_silent_one_acknowledges_and_takes_in_nothing(site: Site, ours: Hq) -> None:
    ours.stop()
    theirs = Hq(site, "theirs")
    site.run(3_000)
    site.ear.publish(encode_batch("t", BATCH, START_MS))
    assert [m.topic for m in site.run(3_000)] == ["t/store/s/outbox"]
    assert theirs.node.receiver.counters["entries"] == 0
    site.clear_heads()
    site.run(5_000)
    site.ear.publish(encode_batch("t", BATCH, START_MS))
    assert "t/store/s/ack" in {m.topic for m in site.run(3_000)}


def test_one_that_is_taken_over_acknowledges_nothing_that_comes_after_the_other_head(site: Site, ours: Hq) -> None:
    head = site.broker.retained["t/head/price/all"]
    site.ear.publish(replace(head, payload=b"?", attributes={"id": "019c00000000-00000000/head/1/1"}))
    site.ear.publish(encode_batch("t", BATCH, START_MS))
    assert [m.topic for m in site.run(5_000)] == ["t/head/price/all", "t/store/s/outbox"]


def test_a_restored_master_needs_no_word(site: Site, ours: Hq) -> None:
    """Neither a second time, nor when a stream has been added since the copy was made."""
    copy = site.directory / "copy.db"
    back_up(ours.master.path, copy, BUILT_IN)
    for _ in range(2):
        ours.put(9, 9, ZONE)
        site.run(3_000)
        ours.stop()
        restore(ours.master.path, copy, START_MS, BUILT_IN, lambda: next(_numbers)).unlink()  # type: ignore[union-attr]
        ours = Hq(site, "ours", master=ours.master)
        site.run(5_000)
        assert not ours.heads.silent
        assert ours.epochs().items() <= site.heads().items()
    ours.put(2, 2, ZONE)
    site.run(5_000)
    assert site.heads() == ours.epochs()


def test_a_copy_on_another_machine_needs_no_word_though_it_lacks_a_stream(site: Site, ours: Hq) -> None:
    copy = site.directory / "elsewhere.copy"
    back_up(ours.master.path, copy, BUILT_IN)
    ours.put(9, 9, ZONE)
    site.run(3_000)
    ours.stop()
    restore(site.directory / "elsewhere.db", copy, START_MS, BUILT_IN, lambda: next(_numbers))
    there = Hq(site, "elsewhere")
    there.put(1, 5)
    site.run(5_000)
    there.put(2, 2, ZONE)
    site.run(5_000)
    assert not there.heads.silent
    assert site.heads() == there.epochs()


def test_a_copy_put_back_by_hand_begins_an_epoch_that_its_master_then_had(site: Site, ours: Hq) -> None:
    copy = site.directory / "copy.db"
    back_up(ours.master.path, copy, BUILT_IN)
    ours.put(50, 2)
    site.run(3_000)
    ours.stop()
    first = ours.epochs()["price/all"]
    ours.master.close()
    copy.replace(ours.master.path)
    for _ in range(2):
        ours = Hq(site, "ours")
        site.run(5_000)
        assert not ours.heads.silent
        ours.stop()
    assert site.heads() == ours.epochs()
    had = [epoch for stream, epoch in ours.master.epochs() if stream == "price/all"]
    assert had == [first, ours.epochs()["price/all"]]


def test_a_master_behind_an_epoch_that_it_had_begins_a_later_one(site: Site, ours: Hq) -> None:
    first = ours.epochs()["price/all"]
    later = ours.master.new_epoch(PRICE, START_MS)
    site.run(5_000)
    ours.stop()
    ours.publication.forget(PRICE)
    ours.master.query("UPDATE streams SET epoch = ? WHERE stream = 'price/all'", (first,))
    again = Hq(site, "ours", master=ours.master)
    site.run(5_000)
    assert site.heads() == again.epochs()
    assert again.epochs()["price/all"] > later


def test_another_chains_copy_put_in_its_place_is_silent(site: Site, ours: Hq) -> None:
    """A restore takes over what the present master had only where both are of one chain."""
    Master.create(site.directory / "other.db", BUILT_IN, START_MS)
    with Master.open(site.directory / "other.db", BUILT_IN) as other:
        back_up(other.path, site.directory / "other.copy", BUILT_IN)
    ours.stop()
    restore(ours.master.path, site.directory / "other.copy", START_MS, BUILT_IN)
    Hq(site, "ours", master=ours.master)
    assert site.run(10_000) == []


def test_an_epoch_that_none_can_follow_is_not_believed(site: Site, ours: Hq) -> None:
    head = site.broker.retained["t/head/price/all"]
    end = b"ffffffffffff-ffffffff"
    payload = unpack(head.payload, head.content_type).replace(ours.epochs()["price/all"].encode(), end)
    site.broker.retained[head.topic] = replace(head, payload=payload, content_type=JSON_TYPE, attributes={})
    site.broker.restart()
    site.run(5_000)
    assert site.heads() == ours.epochs()


def test_epochs_only_go_up(tmp_path: Path) -> None:
    Master.create(tmp_path / "hq.db", BUILT_IN, START_MS, lambda: 0)
    with Master.open(tmp_path / "hq.db", BUILT_IN, lambda: 0) as master:
        last = max(epoch for _, epoch in master.epochs())
        for now_ms in (START_MS, 0, START_MS + 1):
            epoch = master.new_epoch(PRICE, now_ms)
            assert epoch > last
            last = epoch
        master.begin_epochs_after({"price/all": "019c00000000-ffffffff", "price/zone-x": "01ff00000000-00000000"}, 0)
        master.commit(ZONE, [Change(("1", "regular"), ("EUR", "[[0,null,1]]"))], 0)
        found = {str(row.stream): row.epoch for row in master.streams()}
        assert found["price/all"] > "019c00000000-ffffffff"
        assert found["price/zone-x"] > "01ff00000000-00000000"
