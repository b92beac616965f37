"""
What one side sends, the other takes: for every kind of message, whatever the sizes, counts and compressibility.

Two bounds on size are independent of each other: a payload as it travels, and its body before compression. 4,000
products with 80 times the same sentence once made messages that were small on their way, and that no store would
decompress. So this asks twice: that no writer of `contract` makes what the reader refuses, and that no planner asks a
writer for too much.

A further kind of message joins by an entry in `WRITERS`, and one in `PLANNERS` for whoever cuts it to size.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hq.collect.inbox import StoreInbox
from hq.collect.receiver import Receiver
from hq.core.changes import Change
from hq.master.store import Master
from hq.publish.publication import Publication
from hq.publish.sizes import Sizes
from hq.publish.stream_messages import StreamMessages
from storelink.contract import contexts, limits
from storelink.contract.codec import body_bytes
from storelink.contract.contexts import BUILT_IN, Key, Row
from storelink.contract.errors import ContractViolation
from storelink.contract.messages import (
    Head,
    Live,
    Message,
    Segment,
    SegmentRef,
    decode_head,
    decode_live,
    decode_segment,
    encode_head,
    encode_live,
    encode_segment,
)
from storelink.contract.rows import EMPTY
from storelink.contract.status import OutboxStatus, Status, StreamStatus, decode_status, encode_status
from storelink.contract.streams import KINDS, STORE_KINDS, Stream
from storelink.contract.upstream import (
    Ack,
    Entry,
    OutboxBatch,
    Refusal,
    decode_ack,
    decode_batch,
    encode_ack,
    encode_batch,
)
from storelink.transport.memory import MemoryBroker, MemoryLink
from storelink.transport.port import Connected, Received, check_size
from storenode.core.scopes import checked_scopes
from storenode.errors import BadArgument
from storenode.outbox.sender import Sender
from storenode.outbox.status_publisher import StatusPublisher
from storenode.outbox.store import Outbox
from storenode.replica.writer import Replica

PRODUCT, PRICE = Stream(contexts.PRODUCT, "all"), Stream(contexts.PRICE, "all")
EPOCH, DIGEST, STORE = "019b76da1000-5f3c9a01", "a" * 32, "store-042"
TEXTURES = ("same", "letters", "signs")
SEAL_TURNS_MAX = 3_000
"""Far more than any of these catalogs needs; a stream that is rewritten for ever is found by it."""


def text(rng: random.Random, texture: str, chars: int) -> str:
    """Text that compresses to nothing, to three quarters, and hardly at all with three bytes a character."""
    match texture:
        case "same":
            return ("The same sentence, over and over. " * (chars // 34 + 1))[:chars]
        case "letters":
            return "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", k=chars))
        case _:
            return "".join(map(chr, rng.choices(range(0x4E00, 0x9FFF), k=chars)))


@dataclass(frozen=True)
class Bulk:
    """So many items alike: `chars` of one texture each, or steps of a price."""

    count: int
    chars: int
    columns: int
    texture: str
    stream: Stream = PRODUCT

    def values(self, rng: random.Random) -> Row:
        if self.stream == PRICE:
            starts = sorted(rng.sample(range(10**9, 2 * 10**9), min(64, self.chars // 60 + 1)))
            if self.texture == "same":
                starts = [10**9 + n for n in range(len(starts))]
            steps = [f"[{a},{b or 'null'},{rng.randrange(99)}]" for a, b in itertools.pairwise([*starts, 0])]
            return "EUR", f"[{','.join(steps)}]"
        texts = [text(rng, self.texture, self.chars) for _ in range(self.columns)]
        return (None, *texts, *(None,) * (11 - self.columns))


@st.composite
def bulks(draw: st.DrawFn, bytes_max: int = 12_000_000) -> Bulk:
    """Up to 6,000 items and 12 MB of them; only HQ's own bound on a row is kept."""
    stream, texture = draw(st.sampled_from([PRODUCT, PRODUCT, PRICE])), draw(st.sampled_from(TEXTURES))
    chars = draw(st.sampled_from([0, 1, 50, 400, 1_500, 3_000, 4_000]))
    columns = draw(st.sampled_from([1, 1, 2, 5, 10]))
    width = 3 if texture == "signs" else 1
    columns = max(1, min(columns, 60_000 // max(1, chars * width)))
    most = max(1, min(6_000, bytes_max // (chars * columns * width + 60)))
    return Bulk(min(most, draw(st.sampled_from([1, 2, 7, 60, 500, 2_500, 6_000]))), chars, columns, texture, stream)


# --- no writer makes what its reader refuses -------------------------------------------------------------------------


def rows_of(rng: random.Random, bulk: Bulk, count: int, first: int = 1) -> list[Row]:
    sample = [bulk.values(rng) for _ in range(min(count, 5))]
    kind = ("regular",) if bulk.stream == PRICE else ()
    return [(seq, str(seq), *kind, *sample[seq % len(sample)]) for seq in range(first, first + count)]


def a_live(rng: random.Random, bulk: Bulk, count: int) -> tuple[Message, object]:
    rows = rows_of(rng, bulk, count)
    changed = [list(bulk.stream.context.value_names)] * count
    live = Live(bulk.stream, EPOCH, 1, count, EMPTY, DIGEST if count else EMPTY, True, 1, rows, [], changed)
    return encode_live("t", live), live


def a_segment(rng: random.Random, bulk: Bulk, count: int) -> tuple[Message, object]:
    rows = rows_of(rng, bulk, count)
    dead = [row[: 1 + len(bulk.stream.context.keys)] for row in rows_of(rng, bulk, rng.randrange(9), count + 1)]
    segment = Segment(bulk.stream, EPOCH, 1, max(1, count + len(dead)), rows, dead)
    return encode_segment("t", segment, 1), segment


def a_head(rng: random.Random, bulk: Bulk, count: int) -> tuple[Message, object]:
    listed = rng.choice((0, 10, 1_000, 2_500, 20_000))
    refs = tuple(SegmentRef(n, n, 1, 9, rng.randbytes(32).hex()) for n in range(1, listed + 1))
    rows = rows_of(rng, bulk, count, listed + 1)
    head = Head(bulk.stream, EPOCH, listed + count, DIGEST, count, 0, 1, refs, rows, [])
    return encode_head("t", head), head


def an_outbox(rng: random.Random, bulk: Bulk, count: int) -> tuple[Message, object]:
    data = '"' + text(rng, bulk.texture, bulk.chars) + '"'
    dead = rng.randrange(3)
    entries = tuple(Entry(seq, "sale.total", 1, data) for seq in range(1, count + 1))
    withheld = tuple(Refusal(seq, "oversized") for seq in range(count + 1, max(2, count + 1 + dead)))
    batch = OutboxBatch(STORE, EPOCH, 1, count + len(withheld), 0, entries, withheld)
    return encode_batch("t", batch, 1), batch


def an_ack(rng: random.Random, _: Bulk, count: int) -> tuple[Message, object]:
    ack = Ack(STORE, EPOCH, 2**62, tuple(Refusal(rng.randrange(1, 2**62), "r" * 40) for _ in range(count)))
    return encode_ack("t", ack, 1), ack


def a_status(rng: random.Random, _: Bulk, count: int) -> tuple[Message, object]:
    one = StreamStatus("live", EPOCH, 2**62, rng.randbytes(16).hex(), True, 2**62, 2**62, "r" * 80)
    streams = {f"price/{n:032}": one for n in range(count)}
    status = Status(STORE, "live", 2**62, streams, OutboxStatus(EPOCH, 2**62, 2**62, 2**62), {"storenode": "1" * 80})
    return encode_status("t", status), status


Writer = Callable[[random.Random, Bulk, int], tuple[Message, object]]
WRITERS: dict[str, tuple[Writer, Callable[[str, Message], object]]] = {
    "live": (a_live, partial(decode_live, contexts=BUILT_IN)),
    "segment": (a_segment, partial(decode_segment, contexts=BUILT_IN)),
    "head": (a_head, partial(decode_head, contexts=BUILT_IN)),
    "outbox": (an_outbox, decode_batch),
    "ack": (an_ack, decode_ack),
    "status": (a_status, decode_status),
}

COUNTS = st.sampled_from([0, 1, 2, 255, 256, 257, 999, 1_000, 1_001, 5_000, 19_999, 20_000, 20_001])


def normal(value: Any) -> Any:
    """Lists and tuples compare equal."""
    return tuple(map(normal, value)) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("kind", WRITERS)
@settings(max_examples=40, deadline=None)
@given(bulk=bulks(), count=COUNTS, seed=st.integers(0, 99))
def test_what_can_be_written_is_read_and_the_rest_is_oversized(kind: str, bulk: Bulk, count: int, seed: int) -> None:
    write, read = WRITERS[kind]
    count = min(count, 24_000_000 // (bulk.chars * bulk.columns * 3 + 60))
    try:
        message, written = write(random.Random(seed), bulk, count)
    except ContractViolation as violation:
        assert violation.reason == "oversized"
        return
    found = read("t", message)
    for name in type(written).__dataclass_fields__:  # type: ignore[attr-defined]
        assert normal(getattr(found, name)) == normal(getattr(written, name))


def test_every_kind_of_message_is_asked_for() -> None:
    assert set(WRITERS) == set(PLANNERS) == {*KINDS, *STORE_KINDS}


@pytest.mark.parametrize("over", [0, 1])
def test_each_count_is_refused_where_the_reader_would_refuse_it_and_not_before(over: int) -> None:
    """Both sides of each bound, with items so small that no other bound is near."""
    rng, small = random.Random(1), Bulk(1, 0, 1, "same")
    for kind, most in (
        ("live", limits.ROWS_MAX),
        ("ack", limits.ACK_REFUSED_MAX),
        ("status", limits.STATUS_STREAMS_MAX),
        ("outbox", limits.BATCH_ENTRIES_MAX),
    ):
        write, read = WRITERS[kind]
        rng.seed(1)  # of an outbox that is none withheld
        if over:
            with pytest.raises(ContractViolation, match="oversized"):
                write(rng, small, most + 1)
        else:
            read("t", write(rng, small, most)[0])


# --- no planner asks a writer for too much ---------------------------------------------------------------------------


def published(sets: list[Bulk], seed: int, directory: Path, *, moved: float) -> Iterator[tuple[str, object]]:
    """
    What HQ publishes of `sets`, one change set each, read as a store reads it: (kind, what was read).

    Args:
        moved: how many of a set's entities are those of the one before it, changed once more.
    """
    rng, path = random.Random(seed), directory / "hq.db"
    publication = Publication.open(directory / "p.db")
    Master.create(path, BUILT_IN, 0)
    with Master.open(path, BUILT_IN) as master, closing(publication.connection):
        streams = {
            row.stream: StreamMessages.load(row.stream, "t", master, publication, row.epoch, Sizes())
            for row in master.streams()
        }
        at = 0
        for n, bulk in enumerate(sets):
            kind = ("regular",) if bulk.stream == PRICE else ()
            at = max(0, at - int(moved * bulk.count))
            keys: list[Key] = [(str(sku), *kind) for sku in range(at, at + bulk.count)]
            at += bulk.count
            master.commit(bulk.stream, [Change(key, bulk.values(rng)) for key in keys], n)
            messages, row = streams[bulk.stream], master.stream(bulk.stream)
            assert row is not None
            while made := messages.next_live(row):
                yield "live", decode_live("t", made[0], BUILT_IN)
            for _ in range(SEAL_TURNS_MAX):
                if messages.segments.seal(n, 1):
                    break
            else:
                raise AssertionError("sealing does not come to rest")
            sent = messages.head(n)
            assert sent is not None
            head = decode_head("t", sent[0], BUILT_IN)
            for ref in head.segments:
                message = publication.message(bulk.stream, row.epoch, (ref.first, ref.last))
                assert message is not None
                assert ref.size_bytes == len(message.payload)
                yield "segment", decode_segment("t", message, BUILT_IN)
            yield "head", head
            yield "rows", (bulk.stream, master.live_rows(bulk.stream), row.head_seq)


def what_hq_publishes(bulk: list[Bulk], seed: int, directory: Path) -> None:
    """Every message is read, whole, and together they are the master's rows; by both of the ways to a store."""
    by_live: dict[Stream, dict[Key, Row]] = {PRODUCT: {}, PRICE: {}}
    fetched: dict[Key, Row] = {}
    last, ended = dict.fromkeys(by_live, 0), True
    for kind, found in published(bulk, seed, directory, moved=(seed % 3) / 2):
        match found:
            case Live():
                assert (found.first, found.held) == (last[found.stream] + 1, ())
                last[found.stream], ended = found.last, found.commit
                by_live[found.stream] |= {found.stream.context.key_of(row): row for row in found.rows}
            case Segment():
                assert found.held == ()
                fetched |= {found.stream.context.key_of(row): row for row in found.rows}
            case Head():
                assert found.tail_held == ()
                fetched |= {found.stream.context.key_of(row): row for row in found.tail_rows}
            case (Stream() as stream, rows, seq):
                assert kind == "rows"
                assert (by_live[stream], last[stream], ended) == (rows, seq, True)
                assert fetched == rows
                fetched = {}


class Reading(MemoryLink):
    """A link whose messages are read at once as the other side reads them, and go nowhere."""

    def __init__(self, read: Callable[[str, Message], Any]) -> None:
        super().__init__(MemoryBroker(random.Random(0)), "s", lambda _: None)
        self.read = read
        self.found: list[Any] = []

    def publish(self, message: Message) -> int:
        check_size(message)
        self.found.append(self.read("t", message))
        return len(self.found)


def what_a_store_sends(bulk: list[Bulk], seed: int, directory: Path) -> None:
    """All that an outbox accepts gets to HQ within batches that it reads whole; what is refused uses no seq."""
    rng, accepted = random.Random(seed), 0
    link = Reading(decode_batch)
    sender = Sender("t", STORE, directory / "outbox.db", 10**9, link)
    with Outbox(directory / "outbox.db") as outbox:
        outbox._db.execute("PRAGMA synchronous = OFF")  # this is about sizes, not disks
        for each in bulk:
            for _ in range(min(each.count, 1_200)):
                one = text(rng, each.texture, each.chars * rng.choice((1, each.columns)))
                with suppress(BadArgument):
                    accepted = outbox.append("sale.total", one, rng.choice((None, 0, 2**63 - 1, 2**63, -1)))
                    if rng.random() < 0.1:
                        outbox.withhold(accepted, "oversized")
    sender.handle(Connected(1), 0)
    for now_ms in range(1, 9_999):
        sender.step(now_ms, now_ms, woken=True)
        if not link.found or link.found[-1].last == accepted:
            break
        ack = Ack(STORE, link.found[-1].outbox, link.found[-1].last)
        sender.handle(Received(encode_ack("t", ack, now_ms)), now_ms)
    sender.close()
    assert [seq for batch in link.found for seq in range(batch.first, batch.last + 1)] == list(range(1, accepted + 1))
    assert not any(batch.refused for batch in link.found)


def what_hq_acknowledges(bulk: list[Bulk], seed: int, directory: Path) -> None:
    """However many entries were refused, an acknowledgement is one that the store can read."""
    rng, last = random.Random(seed), 0
    link, inbox = Reading(decode_ack), StoreInbox.open(directory / "inbox.db")
    with closing(inbox.connection) as db:
        db.execute("PRAGMA synchronous = OFF")
        collector = Receiver("t", inbox, link)
        collector.handle(Connected(1), 0, 0)
        for _ in (0, *bulk):  # several batches in one turn: together they may refuse more than one message can say
            first, last = last + 1, last + rng.choice((1, 400, limits.BATCH_ENTRIES_MAX))
            withheld = [Refusal(seq, rng.choice(("oversized", "r" * 40))) for seq in range(first, last + 1)]
            batch = encode_batch("t", OutboxBatch(STORE, EPOCH, first, last, 0, (), withheld), 1)
            collector.handle(Received(batch), 1, 1)
        collector.flush(1, 1)
    (ack,) = link.found
    assert [refusal.seq for refusal in ack.refused] == list(range(1, ack.seq + 1))
    assert ack.seq == min(last, limits.ACK_REFUSED_MAX)


def what_a_store_announces(bulk: list[Bulk], _: int, directory: Path) -> None:
    """As many streams as may be configured are told of in one status; more are refused by the configuration."""
    most = limits.STATUS_STREAMS_MAX // len(BUILT_IN)
    for count in (len(bulk), most, most + 1):
        scopes = ["all", *(f"{n:032}" for n in range(count - 1))]
        if count > most:
            with pytest.raises(ContractViolation, match="bad_scopes"):
                checked_scopes(scopes, BUILT_IN)
            continue
        link = Reading(decode_status)
        with closing(
            Replica.open(directory / f"{count}.db", checked_scopes(scopes, BUILT_IN), BUILT_IN).connection
        ) as db:
            db.execute(
                "UPDATE streams SET epoch = ?, position = ?, digest = lower(hex(randomblob(16))), verified_ok = 1,"
                " quarantined = 9999, rebuilt_at_ms = ?, rebuild_reason = 'prev_digest'",
                (EPOCH, 2**62, 2**45),
            )
            announcer = StatusPublisher("t", STORE, db, BUILT_IN, link)
            announcer.handle(Connected(1), 0)
            announcer.step(("live",), OutboxStatus(EPOCH, 1, 2, 3), 1, 1, 5)
        assert [len(status.streams) for status in link.found] == [count * len(BUILT_IN)]


Planner = Callable[[list[Bulk], int, Path], None]
PLANNERS: dict[str, Planner] = {
    "live": what_hq_publishes,
    "segment": what_hq_publishes,
    "head": what_hq_publishes,
    "outbox": what_a_store_sends,
    "ack": what_hq_acknowledges,
    "status": what_a_store_announces,
}


@pytest.mark.parametrize("planner", dict.fromkeys(PLANNERS.values()))
@settings(max_examples=15, deadline=None)
@given(sets=st.lists(bulks(), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_what_is_planned_can_be_sent_and_is_taken(planner: Planner, sets: list[Bulk], seed: int) -> None:
    with TemporaryDirectory() as directory:
        planner(sets, seed, Path(directory))


@pytest.mark.parametrize(
    "sets",
    [
        [Bulk(4_000, 4_000, 1, "same")],
        [Bulk(6_000, 4_000, 1, "same", PRICE)],
        [Bulk(6_000, 1, 1, "same"), Bulk(40, 4_000, 5, "signs"), Bulk(120, 4_000, 10, "letters")],
        [Bulk(100, 4_000, 10, "letters"), Bulk(6_000, 50, 1, "same"), Bulk(7, 4_000, 5, "signs")],
        [Bulk(6_000, 400, 1, "same"), Bulk(600, 4_000, 5, "same")],
    ],
)
def test_large_catalogs_are_sent_in_parts_that_are_taken(sets: list[Bulk], tmp_path: Path) -> None:
    """Large rows behind small ones: HQ once joined and cut the same segments for ever."""
    what_hq_publishes(sets, 0, tmp_path)


def test_only_what_a_message_bears_is_cut_from_a_change_set(tmp_path: Path) -> None:
    """Both bounds cut: 4,000 rows that compress to nothing travel in a few batches, and as few segments."""
    found = list(published([Bulk(4_000, 4_000, 1, "same")], 0, tmp_path, moved=0))
    kinds = [kind for kind, _ in found]
    assert 4 <= kinds.count("live") <= 8
    counts = [len(segment.rows) for _, segment in found if isinstance(segment, Segment)]
    assert min(counts[:-1]) > 700, "each as full as the bound before compression lets it be"
    commits = [live.commit for _, live in found if isinstance(live, Live)]
    assert commits == [False] * (len(commits) - 1) + [True]


def test_a_payloads_size_before_compression_is_read_from_its_header() -> None:
    for count in (0, 1, 500):
        message, _ = a_live(random.Random(1), Bulk(1, 400, 1, "same"), count)
        assert body_bytes(message.payload) > count * 400
