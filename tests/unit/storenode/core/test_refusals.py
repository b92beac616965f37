"""A store that refuses the same message of HQ's again: what it counts, keeps and tells, and what HQ says of it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner

from hq.cli import main as hq
from hq.collect.inbox import StoreInbox, inbox_path
from hq.master.store import Master
from storelink.contract import contexts
from storelink.contract.errors import ContractViolation
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
from storelink.contract.status import (
    OTHER_BYTES,
    REFUSAL_WORDS,
    MessageRefusal,
    Status,
    StreamStatus,
    decode_status,
    encode_status,
    first_refusal,
    refusal_document,
    refusal_hint,
    refusal_sentence,
)
from storelink.contract.streams import Stream, live_topic
from storelink.transport.memory import MemoryBroker
from storelink.transport.port import Received
from storenode.api.metrics import Metrics
from storenode.config import Settings
from storenode.core.refusals import AGAIN, MESSAGES_MAX, Refusals
from storenode.follow.follower import HEAD_TIMEOUT_MS
from storenode.follow.spool import MemorySpool
from storenode.replica.status import status_document
from storenode.replica.streams import StreamState
from storenode.replica.writer import Replica
from tests.nodes import NodeInMemory

PRICE, EPOCH = Stream(contexts.PRICE, "all"), "019b76da1000-5f3c9a01"
WALL_MS = 1_767_225_660_000
LARGE = ContractViolation("oversized", "zstd frame declares 5100000 bytes")
OTHER = ContractViolation(OTHER_BYTES, "9 bytes")
TOLD = MessageRefusal("segment", "1-4000", "oversized", "zstd frame declares 5100000 bytes", WALL_MS, 41)
SAID = (
    "refuses segment 1-4000 since 2026-01-01T00:01:00Z: it is too large: 131,072 bytes as sent and 4,194,304 unpacked"
    " are the limit (zstd frame declares 5100000 bytes; 41 times)"
)
UPGRADE = "HQ and store versions may differ: compare storenode --version with hq --version, upgrade the older one"


def test_once_is_no_news_and_again_is() -> None:
    found = Refusals(None)
    found.refuse("head", None, LARGE, 1)
    assert (found.worst, found.reported) == (None, "")
    found.refuse("head", None, ContractViolation("bad_json", "at 7"), 9)
    assert found.worst == MessageRefusal("head", None, "bad_json", "at 7", 1, AGAIN)
    reported = found.reported
    found.refuse("head", None, ContractViolation("bad_json", "at 7"), 10)
    assert found.reported == reported, "a count alone is no news to HQ"
    found.accept("live")
    assert found.worst == MessageRefusal("head", None, "bad_json", "at 7", 1, 3)
    found.accept("head")
    assert found.reported == ""


def test_the_head_is_told_before_a_segment_and_that_before_live_messages() -> None:
    found = Refusals(None)
    for message, span in (("live", None), ("segment", "5-8"), ("segment", "1-4"), ("head", None)):
        for _ in range(AGAIN):
            found.refuse(message, span, LARGE, 1)
    told = []
    while (worst := found.worst) is not None:
        told.append((worst.message, worst.range))
        if worst.range:
            found.need({"1-4"} if worst.range == "5-8" else ())
        else:
            found.accept(worst.message)
    assert told == [("head", None), ("segment", "5-8"), ("segment", "1-4"), ("live", None)]


def test_a_segment_of_other_bytes_is_forgotten_when_it_comes_and_one_that_cannot_be_read_is_not() -> None:
    found = Refusals(None)
    for violation, kept in ((OTHER, False), (LARGE, True)):
        for _ in range(AGAIN):
            found.refuse("segment", "1-4", violation, 1)
        found.fetched("1-4")
        assert (found.worst is not None) == kept
    found.clear()
    assert found.worst is None


def test_what_is_counted_has_a_bound() -> None:
    found = Refusals(TOLD)
    for at in range(2 * MESSAGES_MAX):
        found.refuse("segment", f"{at}-{at}", LARGE, at)
    assert len(found._found) == MESSAGES_MAX
    assert found.worst == TOLD, "what was told before a restart is told on"


def test_both_ends_say_it_in_the_same_words() -> None:
    found = refusal_document(TOLD)
    assert found == {
        "message": "segment",
        "range": "1-4000",
        "reason": "oversized",
        "why": REFUSAL_WORDS["oversized"],
        "detail": "zstd frame declares 5100000 bytes",
        "since": "2026-01-01T00:01:00Z",
        "times": 41,
    }
    assert (refusal_sentence("price/all", found), refusal_hint(found)) == (f"price/all: {SAID}", UPGRADE)
    live = refusal_document(MessageRefusal("live", None, "columns", "HQ has rate", 0, 1))
    head = refusal_document(MessageRefusal("head", None, "a_newer_reason", "x", 0, 2))
    assert live
    assert head
    assert refusal_sentence("a/b", live) == (
        "a/b: refuses live messages since 1970-01-01T00:00:00Z: HQ's columns are not those declared here"
        " (HQ has rate; once)"
    )
    assert (
        refusal_sentence("a/b", head) == "a/b: refuses the head since 1970-01-01T00:00:00Z: a_newer_reason (x; 2 times)"
    )
    assert refusal_hint(live).startswith("make the store's file of contexts HQ's")
    assert refusal_document(None) is None


def test_every_reason_has_words() -> None:
    text = (Path(__file__).parents[4] / "storelink" / "contract" / "README.md").read_text(encoding="utf-8")
    table = text.partition("## 6. Refusal")[2].partition("\n## ")[0]
    reasons = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")} - {"bad_declaration"}
    assert reasons | {OTHER_BYTES, "epoch"} == REFUSAL_WORDS.keys()


def test_a_detail_is_short_and_cannot_forge_a_line_on_a_screen() -> None:
    first = first_refusal("head", None, ContractViolation("bad_json", "\x1b[2J\nall is well\ud800" + "x" * 999), 1)
    assert first.detail == "?[2J?all is well?" + "x" * 183
    body = json.loads(encode_status("t", status(replace(TOLD, detail="\x1b[2J"))).payload)
    told = decode_status("t", replace(encode_status("t", status(TOLD)), payload=json.dumps(body).encode()))
    found = told.streams["price/all"].refusal
    assert found
    assert found.detail == "?[2J"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("message", "batch"),
        ("message", "head"),
        ("range", None),
        ("range", "1-2\x1b"),
        ("reason", "\x1b[2J"),
        ("detail", "x" * 201),
        ("since_ms", 2**62),
        ("times", -1),
        ("times", None),
    ],
)
def test_hq_takes_no_status_with_a_refusal_that_it_could_not_show(key: str, value: object) -> None:
    message = encode_status("t", status(TOLD))
    body = json.loads(message.payload)
    body["streams"]["price/all"]["refusal"][key] = value
    with pytest.raises(ContractViolation):
        decode_status("t", replace(message, payload=json.dumps(body).encode()))


def status(refused: MessageRefusal | None, position: int = 0) -> Status:
    epoch = None if position == 0 else EPOCH
    one = StreamStatus("bootstrapping", epoch, position, EMPTY, refusal=refused)
    return Status("s", "bootstrapping", WALL_MS, {"price/all": one})


ROWS = [(seq, str(seq), "regular", "EUR", "[[0,null,7]]") for seq in range(1, 9)]


def segment(first: int, last: int) -> Message:
    return encode_segment("t", Segment(PRICE, EPOCH, first, last, ROWS[first - 1 : last], ()), 0)


def unreadable(message: Message) -> Message:
    """Larger than a store takes, once it is unpacked; nothing else is wrong with it."""
    return replace(message, payload=message.payload[:-1] + b" " * 140_000 + b"}", content_type="application/json")


def head_of(*segments: Message) -> Message:
    refs = []
    for message in segments:
        first, last = map(int, message.topic.rpartition("/")[2].split("-"))
        size_bytes = min(len(message.payload), 131_072)
        refs.append(SegmentRef(first, last, last - first + 1, size_bytes, sha256(message.payload).hexdigest()))
    digest = to_hex(sum(map(row_hash, ROWS)))
    return encode_head("t", Head(PRICE, EPOCH, 8, digest, 8, 0, 0, tuple(refs), (), ()))


class Site:
    """A store's node on a broker in memory, on which only a test writes."""

    def __init__(self, directory: Path) -> None:
        self.path, self.now_ms, self.spool = directory / "replica.db", 0, MemorySpool()
        self.broker = MemoryBroker(random.Random(1))
        self.broker.reconnect_ms_max = 0
        self.begin()

    def begin(self) -> None:
        settings = Settings(db=self.path, store_id="s", root="t", scopes=("price/all",))
        self.node = NodeInMemory(
            settings, self.broker, "s", wall_ms=WALL_MS, mono_ms=self.now_ms, spools=lambda _: self.spool
        )
        self.replica, self.router = self.node.replica, self.node.router

    def end(self) -> None:
        self.node.crash()

    def put(self, *messages: Message) -> None:
        for message in messages:
            self.broker.retained[message.topic] = message

    def run(self, ms: int) -> None:
        end_ms = self.now_ms + ms
        while self.now_ms < end_ms:
            self.now_ms += 100
            self.broker.advance(self.now_ms)
            self.node.turn(self.now_ms)

    def at_store(self) -> MessageRefusal | None:
        return self.replica.state(PRICE).refusal

    def at_hq(self) -> MessageRefusal | None:
        """What HQ was told last."""
        return decode_status("t", self.broker.retained["t/store/s/status"]).streams["price/all"].refusal


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.end()


CASES: dict[str, tuple[tuple[Message, ...], tuple[str, str | None, str]]] = {
    "an unreadable segment": (
        (segment(1, 4), unreadable(segment(5, 8)), head_of(segment(1, 4), unreadable(segment(5, 8)))),
        ("segment", "5-8", "oversized"),
    ),
    "a segment of another epoch": (
        (
            replace(segment(1, 8), payload=segment(1, 8).payload.replace(b"5f3c9a01", b"00000000")),
            head_of(replace(segment(1, 8), payload=segment(1, 8).payload.replace(b"5f3c9a01", b"00000000"))),
        ),
        ("segment", "1-8", "epoch"),
    ),
    "a segment of other bytes": (
        (segment(1, 8), head_of(replace(segment(1, 8), payload=b"{}"))),
        ("segment", "1-8", OTHER_BYTES),
    ),
    "an unreadable head": ((unreadable(head_of(segment(1, 8))), segment(1, 8)), ("head", None, "oversized")),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_refused_again_is_told_within_the_minute_and_no_longer_than_it_is_so(site: Site, case: str) -> None:
    """The store was `bootstrapping` for ever, fetched everything anew every 10 s, and nobody was told why."""
    messages, expected = CASES[case]
    site.put(*messages)
    site.run(HEAD_TIMEOUT_MS // 2)
    assert (site.at_store(), site.at_hq()) == (None, None), "once is no news"
    site.run(50_000 - HEAD_TIMEOUT_MS // 2)
    for told in (site.at_store(), site.at_hq()):
        assert told
        assert (told.message, told.range, told.reason) == expected
        assert told.since_ms < WALL_MS + HEAD_TIMEOUT_MS
    kept = site.at_store()
    assert kept
    assert kept.times >= 3
    found = status_document(site.path, contexts.BUILT_IN)["streams"]["price/all"]
    assert found["refusal"] == refusal_document(kept)
    site.put(segment(1, 8), head_of(segment(1, 8)))
    site.run(2 * HEAD_TIMEOUT_MS)
    assert site.replica.state(PRICE) == StreamState(EPOCH, 8, to_hex(sum(map(row_hash, ROWS))))
    assert (site.at_store(), site.at_hq()) == (None, None)


@pytest.mark.parametrize("case", ["an unreadable segment", "an unreadable head"])
def test_it_is_over_once_hq_has_replaced_the_message_even_if_the_catch_up_still_waits(site: Site, case: str) -> None:
    site.put(*CASES[case][0])
    site.run(30_000)
    assert site.at_hq()
    for topic in [topic for topic in site.broker.retained if "/segment/" in topic]:
        del site.broker.retained[topic]
    site.put(head_of(segment(1, 3), segment(4, 8)))
    site.run(20_000)
    assert site.replica.state(PRICE) == StreamState(None, 0, EMPTY)
    assert (site.at_store(), site.at_hq()) == (None, None)


def test_a_segment_of_other_bytes_is_no_longer_told_once_it_came_even_if_another_is_missing(site: Site) -> None:
    site.put(replace(segment(1, 4), payload=b"{}"), head_of(segment(1, 4), segment(5, 8)))
    site.run(50_000)
    assert site.at_hq()
    site.put(segment(1, 4))
    site.run(20_000)
    assert site.replica.state(PRICE) == StreamState(None, 0, EMPTY)
    assert (site.at_store(), site.at_hq()) == (None, None)


def test_segments_that_can_be_read_are_not_fetched_again_because_one_cannot(site: Site) -> None:
    bad = unreadable(segment(5, 8))
    site.put(segment(1, 4), bad, head_of(segment(1, 4), bad))
    site.run(5_000)
    fetched = site.router.counters["bytes"]
    assert fetched > len(bad.payload)
    site.run(60_000)
    heads = 7 * len(head_of(segment(1, 4), bad).payload)
    assert site.router.counters["bytes"] - fetched <= heads


def test_live_messages_that_cannot_be_read_are_told_until_one_can(site: Site) -> None:
    site.put(segment(1, 8), head_of(segment(1, 8)))
    site.run(2_000)
    garbage = Message(live_topic("t", PRICE), b"{}", content_type="application/json")
    router = site.router
    for _ in range(AGAIN):
        router.handle(Received(garbage), site.now_ms, WALL_MS)
    site.run(1_000)
    told = site.at_hq()
    assert told
    assert (told.message, told.times) == ("live", 2)
    digest = to_hex(sum(map(row_hash, ROWS)))
    router.handle(Received(encode_live("t", Live(PRICE, EPOCH, 9, 8, digest, digest, True, 1))), site.now_ms, WALL_MS)
    site.run(1_000)
    assert (site.at_store(), site.at_hq()) == (None, None)


def test_since_when_outlives_a_restart(site: Site) -> None:
    messages, _ = CASES["an unreadable head"]
    site.put(*messages)
    site.run(30_000)
    before = site.at_store()
    assert before
    site.end()
    site.begin()
    site.run(20_000)
    told, kept = site.at_hq(), site.at_store()
    assert told
    assert kept
    assert (told.since_ms, kept.times > before.times) == (before.since_ms, True)


def test_a_metric_counts_it(tmp_path: Path) -> None:
    replica = Replica.open(tmp_path / "replica.db", ("price/all",), contexts.BUILT_IN)
    for refused, line in ((TOLD, 41), (None, 0)):
        replica.note(PRICE, state="bootstrapping", head_seq=0, as_of_ms=None, refusal=refused)
        outbox = dict.fromkeys(("pending", "refused", "acked_seq", "oldest_age_seconds"))
        page = Metrics().page(status_document(replica.path, contexts.BUILT_IN) | {"outbox": outbox}).decode()
        assert f'storenode_stream_refused_times{{stream="price/all"}} {line}\n' in page
    replica.connection.close()


@pytest.mark.parametrize("position", [0, 1])
def test_hq_verify_is_not_content_with_a_store_that_refuses_and_hq_stores_says_why(
    tmp_path: Path, position: int
) -> None:
    """A store at a position that HQ had, and one that never was complete: both passed for `ok`."""
    environ = {"HQ_DB": str(tmp_path / "hq.db"), "HQ_CONFIG": ""}

    def typed(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(hq, words, env=environ)
        return done.exit_code, done.stdout

    typed("init")
    typed("publish", "price", "sku=1", "amount=1.00", "currency=EUR")
    with Master.open(tmp_path / "hq.db", contexts.BUILT_IN) as master:
        row = master.stream(PRICE)
    assert row is not None
    inbox = StoreInbox.open(inbox_path(tmp_path / "hq.db"))

    def say(refused: MessageRefusal | None) -> None:
        found = status(refused, position)
        if position:
            one = replace(found.streams["price/all"], epoch=row.epoch, digest=row.digest)
            found = replace(found, streams={"price/all": one})
        with inbox.transaction():
            inbox.set_status(found, WALL_MS)

    say(TOLD)
    code, text = typed("verify")
    assert (code, f"REFUSES  s price/all: {SAID}\n         {UPGRADE}\n" in text, "DIFFERS" in text) == (2, True, False)
    code, text = typed("verify", "--json")
    facts = json.loads(text)["stores"]["s"]["price/all"]
    assert (code, json.loads(text)["ok"], facts["ok"], facts["refusal"]) == (2, False, False, refusal_document(TOLD))
    assert f"  price/all: {SAID}\n  {UPGRADE}\n" in typed("stores")[1]
    assert json.loads(typed("stores", "--json")[1])["stores"]["s"]["streams"]["price/all"][
        "refusal"
    ] == refusal_document(TOLD)
    say(None)
    assert typed("verify")[0] == 0
    assert json.loads(typed("stores", "--json")[1])["stores"]["s"]["streams"]["price/all"]["refusal"] is None
    inbox.connection.close()
