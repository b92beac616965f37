"""Store to HQ and back over a link in memory: each entry once, in order, acknowledged when it is on disk.

Two control runs at the end break the collector on purpose, and the same oracle must notice.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

import storelink.contract.upstream
from hq.cli import main
from hq.collect import receiver
from hq.collect.inbox import StoreInbox, entries_after, inbox_path, reading, stores, summary
from hq.collect.receiver import Receiver
from hq.core.outbox_intake import Take
from hq.errors import InboxUnwritable
from hq.master.store import Master
from storelink.contract.contexts import BUILT_IN
from storelink.contract.errors import ContractViolation
from storelink.contract.messages import Message
from storelink.contract.status import Status, encode_status
from storelink.contract.upstream import Ack, Entry, OutboxBatch, decode_ack, encode_batch
from storelink.transport.memory import MemoryBroker, MemoryLink
from storelink.transport.port import LinkEvent, Received
from storenode.outbox.sender import Sender
from storenode.outbox.store import Outbox

EPOCH = "019b76da1000-5f3c9a01"
Got = list[tuple[str, int, str]]


class Hq:
    """The collecting half of `hq run`, on a file."""

    def __init__(self, broker: MemoryBroker, directory: Path, inbox: type[StoreInbox] = StoreInbox) -> None:
        self.events: list[LinkEvent] = []
        self.link = MemoryLink(broker, "hq", self.events.append)
        self.inbox = inbox(inbox_path(directory / "hq.db"))
        self.collector = Receiver("t", self.inbox, self.link)
        self.link.start()

    def turn(self, now_ms: int) -> None:
        waiting, self.events[:] = list(self.events), []
        for event in waiting:
            self.collector.handle(event, now_ms, now_ms)
        self.collector.flush(now_ms, now_ms)

    def crash(self) -> None:
        self.link.abort()
        self.inbox.connection.close()


class Shop:
    """The sending half of `storenode run`, on a file."""

    def __init__(self, broker: MemoryBroker, directory: Path, name: str = "s") -> None:
        self.events: list[LinkEvent] = []
        self.path = directory / f"{name}.outbox.db"
        self.link = MemoryLink(broker, name, self.events.append)
        self.sender = Sender("t", name, self.path, 10**8, self.link)
        self.link.start()

    def emit(self, *values: Any) -> None:
        with Outbox(self.path) as outbox:
            for value in values:
                outbox.append("x", value, 7)

    def turn(self, now_ms: int) -> None:
        waiting, self.events[:] = list(self.events), []
        for event in waiting:
            self.sender.handle(event, now_ms)
        for _ in range(20):
            if not self.sender.step(now_ms, now_ms):
                break

    @property
    def standing(self) -> tuple[int, int, int]:
        with Outbox(self.path) as outbox:
            found = outbox.standing()
        return found.pending, found.acked_seq, found.refused


class Pair:
    def __init__(self, directory: Path) -> None:
        self.directory, self.now_ms = directory, 0
        self.broker = MemoryBroker(random.Random(1))
        self.broker.reconnect_ms_max = 0
        self.hq: Hq | None = Hq(self.broker, directory)
        self.broker.advance(0)
        self.hq.turn(0)
        self.broker.advance(0)
        self.shop = Shop(self.broker, directory)

    def run(self, turns: int = 30, *, step_ms: int = 100) -> None:
        for _ in range(turns):
            self.now_ms += step_ms
            self.broker.advance(self.now_ms)
            self.shop.turn(self.now_ms)
            self.broker.advance(self.now_ms)
            if self.hq is not None:
                self.hq.turn(self.now_ms)
            self.broker.advance(self.now_ms)

    def got(self) -> Got:
        with reading(inbox_path(self.directory / "hq.db")) as db:
            assert db is not None
            return [(k.store, k.seq, k.data) for k in entries_after(db, 0, 10**6)]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    found = Pair(tmp_path)
    yield found
    found.shop.sender.close()
    if found.hq is not None:
        found.hq.inbox.connection.close()


def recorded(link: MemoryLink, monkeypatch: pytest.MonkeyPatch) -> list[Ack]:
    """The acknowledgements that go out from here on; none of them arrives."""
    acks: list[Ack] = []

    def record(message: Message) -> int:
        acks.append(decode_ack("t", message))
        return 1

    monkeypatch.setattr(link, "publish", record)
    return acks


def batch(first: int, last: int, acked: int = 0, store: str = "s") -> OutboxBatch:
    return OutboxBatch(
        store, EPOCH, first, last, acked, tuple(Entry(i, "x", 7, str(i)) for i in range(first, last + 1))
    )


def test_what_was_appended_while_everything_was_down_arrives_in_order_and_is_then_removed(pair: Pair) -> None:
    pair.shop.emit(*range(2_500))
    pair.run()
    assert pair.got() == [("s", i + 1, str(i)) for i in range(2_500)]
    assert pair.shop.standing == (0, 2_500, 0)


def test_a_puback_removes_nothing(pair: Pair) -> None:
    pair.shop.emit(1, 2)
    assert pair.hq is not None
    pair.hq.crash()
    pair.hq = None
    pair.run(60, step_ms=5_000)
    assert pair.shop.standing == (2, 0, 0), "the broker has acknowledged it many times; HQ has not"
    pair.hq = Hq(pair.broker, pair.directory)
    pair.run(100, step_ms=1_000)
    assert (pair.got(), pair.shop.standing) == ([("s", 1, "1"), ("s", 2, "2")], (0, 2, 0))


def test_without_hq_the_line_carries_two_entries_a_minute(pair: Pair) -> None:
    pair.shop.emit(*range(5_000))
    assert pair.hq is not None
    pair.hq.crash()
    pair.hq = None
    pair.run(60, step_ms=1_000)
    before = pair.shop.sender.counters["outbox_batches"]
    pair.run(120, step_ms=5_000)
    assert pair.shop.sender.counters["outbox_batches"] - before <= 21


def test_an_hq_that_comes_back_is_not_waited_for(pair: Pair) -> None:
    pair.shop.emit(1)
    pair.run()
    assert pair.hq is not None
    pair.hq.crash()
    pair.hq = None
    pair.shop.emit(2, 3)
    pair.run(120, step_ms=5_000)
    pair.hq = Hq(pair.broker, pair.directory)
    pair.run(5)
    assert pair.shop.standing == (0, 3, 0)


def test_a_poison_entry_is_set_aside_and_blocks_nothing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """An HQ that cannot read a whole batch for one entry's sake: it is found, one by one."""
    pair.shop.emit("a", "b", "poison", "c", "d")
    whole = storelink.contract.upstream.decode_batch

    def unreadable(root: str, message: Message) -> OutboxBatch:
        found = whole(root, message)
        if any(e.data == '"poison"' for e in found.entries):
            raise ContractViolation("bad_json", "cannot be read")
        return found

    monkeypatch.setattr("hq.collect.receiver.decode_batch", unreadable)
    pair.run(60)
    assert pair.got() == [("s", 1, '"a"'), ("s", 2, '"b"'), ("s", 4, '"c"'), ("s", 5, '"d"')]
    assert pair.shop.standing == (0, 5, 1)
    with reading(inbox_path(pair.directory / "hq.db")) as db:
        assert db is not None
        assert db.execute("SELECT store, seq, reason FROM refused").fetchall() == [("s", 3, "bad_json")]


def test_an_entry_that_the_broker_would_not_take_is_set_aside(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(2)
    pair.shop.emit("small", "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(3_000)), "behind")
    publish = pair.shop.link.publish

    def strict(message: Message) -> int:
        from storelink.transport.port import check_size

        check_size(message, 2_000)
        return publish(message)

    monkeypatch.setattr(pair.shop.link, "publish", strict)
    pair.run()
    assert [(seq, data) for _, seq, data in pair.got()] == [(1, '"small"'), (3, '"behind"')]
    assert pair.shop.standing == (0, 3, 1)


def test_an_entry_that_hq_refuses_is_told_so_even_when_the_ack_got_lost(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pair.hq is not None
    bad = replace(batch(1, 3), entries=(Entry(1, "x", 7, "1"), Entry(2, "no name!", 7, "2"), Entry(3, "x", 7, "3")))
    pair.run(3)
    acks = recorded(pair.hq.link, monkeypatch)
    for seen in (bad, bad, batch(4, 4)):
        pair.hq.events.append(Received(encode_batch("t", seen, 1)))
        pair.hq.turn(pair.now_ms)
    assert [(a.seq, [(r.seq, r.reason) for r in a.refused]) for a in acks] == [
        (3, [(2, "bad_name")]),
        (3, [(2, "bad_name")]),
        (4, [(2, "bad_name")]),
    ]


def test_a_hole_is_not_acknowledged_past(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pair.hq is not None
    pair.run(3)
    acks = recorded(pair.hq.link, monkeypatch)
    for seen in (batch(1, 3), batch(7, 9), batch(4, 6), batch(7, 9)):
        pair.hq.events.append(Received(encode_batch("t", seen, 1)))
        pair.hq.turn(pair.now_ms)
    assert [(a.seq, a.resend) for a in acks] == [(3, False), (3, True), (6, False), (9, False)]
    assert [seq for _, seq, _ in pair.got()] == list(range(1, 10))


def test_a_store_cannot_speak_for_another(pair: Pair) -> None:
    assert pair.hq is not None
    pair.run(3)
    forged = replace(encode_batch("t", batch(1, 1, store="other"), 1), topic="t/store/s/outbox")
    pair.hq.events.append(Received(forged))
    pair.hq.turn(pair.now_ms)
    assert (pair.got(), pair.hq.collector.counters["rejected_wrong_stream"]) == ([], 1)


def test_a_replaced_machine_begins_at_1_and_is_told_apart(pair: Pair) -> None:
    pair.shop.emit("old")
    pair.run()
    pair.shop.sender.close()
    for file in pair.directory.glob("s.outbox.db*"):
        file.unlink()
    pair.shop = Shop(pair.broker, pair.directory)
    pair.shop.emit("new")
    pair.run()
    assert pair.got() == [("s", 1, '"old"'), ("s", 1, '"new"')]


def test_a_store_whose_hq_lost_its_inbox_goes_on(pair: Pair) -> None:
    pair.shop.emit(1, 2, 3)
    pair.run()
    assert pair.hq is not None
    pair.hq.crash()
    for file in pair.directory.glob("hq.inbox.db*"):
        file.unlink()
    pair.hq = Hq(pair.broker, pair.directory)
    pair.shop.emit(4)
    pair.run(step_ms=500)
    assert (pair.got(), pair.shop.standing) == ([("s", 4, "4")], (0, 4, 0))


def test_an_outbox_restored_from_a_copy_begins_a_new_epoch_and_loses_nothing(pair: Pair) -> None:
    """HQ knows more of it than it has: its seqs would name other entries there, and be taken for repeats."""
    pair.shop.emit(1)
    copy = pair.shop.path.read_bytes()
    pair.shop.emit(2, 3, 4)
    pair.run()
    pair.shop.sender.close()
    for file in pair.directory.glob("s.outbox.db*"):
        file.unlink()
    pair.shop.path.write_bytes(copy)
    pair.shop = Shop(pair.broker, pair.directory)
    pair.shop.emit("after")
    pair.run()
    assert [data for _, _, data in pair.got()] == ["1", "2", "3", "4", "1", '"after"']
    assert pair.shop.standing[0] == 0


def test_a_full_disk_at_hq_acknowledges_nothing_and_heals(pair: Pair) -> None:
    assert pair.hq is not None
    pair.shop.emit("first")
    pair.run()
    pair.hq.inbox.connection.execute("PRAGMA max_page_count = 1")
    pair.shop.emit(*("y" * 5_000 for _ in range(30)))
    with pytest.raises(InboxUnwritable), pair.hq.inbox.transaction():
        pair.hq.inbox.put(replace(batch(1, 1, store="z"), entries=(Entry(1, "x", 7, '"' + "z" * 60_000 + '"'),)), 0, 1)
    pair.run(60, step_ms=5_000)
    assert (len(pair.got()), pair.shop.standing[:2]) == (1, (30, 1))
    pair.hq.inbox.connection.execute("PRAGMA max_page_count = 1000000")
    pair.run(14, step_ms=500)
    assert (len(pair.got()), pair.shop.standing[:2]) == (31, (0, 31)), "within 7 s, however long it took"


def test_what_hq_acknowledges_is_on_its_disk(pair: Pair) -> None:
    assert pair.hq is not None
    assert pair.hq.inbox.connection.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
    assert pair.hq.inbox.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_damaged_outbox_is_told_and_tried_again_and_stops_nothing(pair: Pair) -> None:
    pair.shop.emit(1)
    sound = pair.shop.path.read_bytes()
    pair.shop.path.write_bytes(b"garbage " * 4_096)
    pair.run(10, step_ms=1_000)
    assert (pair.got(), pair.shop.sender.status) == ([], None)
    pair.shop.path.write_bytes(sound)
    pair.run(60, step_ms=1_000)
    assert pair.got() == [("s", 1, "1")]


def test_the_last_word_of_a_store_and_its_will(pair: Pair) -> None:
    assert pair.hq is not None
    pair.run(3)
    said = Status("s", "live", 50, versions={"storenode": "1"})
    for status in (said, Status("s", "offline", 60), Status("never-seen", "offline", 60)):
        pair.hq.events.append(Received(replace(encode_status("t", status), retain=False)))
        pair.hq.turn(900)
    with reading(inbox_path(pair.directory / "hq.db")) as db:
        assert db is not None
        found = stores(db)
    assert [(name, f["online"], f["seen_at_ms"]) for name, f in found.items()] == [
        ("never-seen", False, 900),
        ("s", False, 900),
    ]
    assert (found["s"]["status"]["versions"], found["never-seen"]["status"]) == ({"storenode": "1"}, None)


def test_a_job_with_a_cursor_consumes_each_entry_once(pair: Pair) -> None:
    with Master(pair.directory / "hq.db", BUILT_IN) as master:
        master.create(1)

    def typed(*words: str) -> str:
        done = CliRunner().invoke(main, words, env={"HQ_DB": str(pair.directory / "hq.db"), "HQ_CONFIG": ""})
        assert done.exit_code == 0, done.output
        return done.stdout

    assert typed("inbox", "--ndjson") == ""
    consumed: list[Any] = []
    cursor = 0
    for round_ in range(4):
        pair.shop.emit(*(round_ * 10 + i for i in range(5)))
        pair.run()
        while lines := typed("inbox", "--ndjson", "--after", str(cursor), "--limit", "3").splitlines():
            found = [json.loads(line) for line in lines]
            consumed += [f["data"] for f in found]
            cursor = found[-1]["cursor"]
    assert consumed == [r * 10 + i for r in range(4) for i in range(5)]
    assert list(json.loads(typed("inbox", "--ndjson", "--limit", "1"))) == [
        "cursor",
        "store",
        "epoch",
        "seq",
        "type",
        "time",
        "data",
    ]
    assert typed("inbox", "--ndjson", "--store", "other") == typed("inbox", "--ndjson", "--type", "y") == ""
    (outbox,) = json.loads(typed("inbox", "--json"))["stores"]["s"].values()
    assert (outbox["seq"], outbox["entries"], outbox["refused"]) == (20, 20, 0)
    assert len(typed("inbox").splitlines()) == 20
    with reading(inbox_path(pair.directory / "hq.db")) as db:
        assert db is not None
        assert summary(db)["cursor"] == 20


class KeepsTwice(StoreInbox):
    """A control: keeps whatever comes under a name of its own, so that an entry can be there twice."""

    def put(self, batch: OutboxBatch, after: int, now_ms: int) -> None:
        super().put(replace(batch, outbox=f"{batch.outbox}/{self.connection.total_changes}"), after, now_ms)
        self.connection.execute(
            "INSERT OR REPLACE INTO outboxes VALUES(?, ?, ?, ?)", (batch.store, batch.outbox, batch.last, now_ms)
        )


def dedup_off(patch: pytest.MonkeyPatch) -> type[StoreInbox]:
    """A control: takes whatever comes, as if each batch were new."""
    patch.setattr(receiver, "judge", lambda _through, batch: Take(batch.first - 1, 0))
    return KeepsTwice


class DiesOnCommit(StoreInbox):
    """A control: HQ is told that what it has been given is here, and the commit fails."""

    given: ClassVar[dict[tuple[str, str], int]] = {}

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with suppress(CommitFailed), super().transaction():
            yield
            raise CommitFailed

    def put(self, batch: OutboxBatch, after: int, now_ms: int) -> None:
        super().put(batch, after, now_ms)
        self.given[batch.store, batch.outbox] = batch.last

    def through(self, store: str, epoch: str) -> int:
        return max(super().through(store, epoch), self.given.get((store, epoch), 0))


class CommitFailed(Exception):
    """Rolls a commit back."""


def ack_first(_: pytest.MonkeyPatch) -> type[StoreInbox]:
    """A control: acknowledges what it then fails to commit."""
    DiesOnCommit.given.clear()
    return DiesOnCommit


def as_it_is(_: pytest.MonkeyPatch) -> type[StoreInbox]:
    return StoreInbox


def faulty_run(directory: Path, inbox: type[StoreInbox]) -> tuple[int, int]:
    """Lost acknowledgements and crashes of HQ; returns how many of 40 entries were lost, and how many are double."""
    pair = Pair(directory)
    assert pair.hq is not None
    pair.hq.crash()
    for round_ in range(8):
        pair.hq = Hq(pair.broker, directory, inbox)
        pair.run(2)
        pair.shop.emit(*range(round_ * 5, round_ * 5 + 5))
        pair.broker.loss = 0.4
        pair.run(20, step_ms=700)
        pair.broker.loss = 0.0
        pair.hq.crash()
    pair.hq = Hq(pair.broker, directory)
    pair.run(60, step_ms=1_500)
    found = [int(data) for _, _, data in pair.got()]
    pair.hq.crash()
    pair.shop.sender.close()
    return len(set(range(40)) - set(found)), len(found) - len(set(found))


@pytest.mark.parametrize(
    ("made_of", "sound"),
    [
        (as_it_is, lambda lost, double: (lost, double) == (0, 0)),
        (dedup_off, lambda lost, double: double > 0),
        (ack_first, lambda lost, double: lost > 0),
    ],
    ids=["as it is", "control: dedup off", "control: ack before commit"],
)
def test_nothing_is_lost_or_double_and_the_oracle_can_tell(
    tmp_path: Path,
    made_of: Callable[[pytest.MonkeyPatch], type[StoreInbox]],
    sound: Callable[[int, int], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        assert sound(*faulty_run(tmp_path, made_of(patch)))
