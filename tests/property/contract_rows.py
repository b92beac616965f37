"""Strategies for what HQ may write, derived from the declarations and from nothing else."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from storelink.contract.contexts import BUILT_IN, Column, Context, Row
from storelink.contract.messages import Head, Live, Segment, SegmentRef
from storelink.contract.rows import to_hex
from storelink.contract.status import (
    REFUSAL_WORDS,
    STATES,
    MessageRefusal,
    OutboxStatus,
    Status,
    StreamStatus,
    printable,
)
from storelink.contract.streams import Stream
from storelink.contract.upstream import Ack, Entry, OutboxBatch, Refusal, Rejection

EPOCHS = st.builds("{:012x}-{:08x}".format, st.integers(0, 2**48 - 1), st.integers(0, 2**32 - 1))
DIGESTS = st.integers(0, 2**128 - 1).map(to_hex)
TIMES_MS = st.integers(0, 2**45)
STREAMS = st.builds(
    Stream, st.sampled_from(list(BUILT_IN.values())), st.sampled_from(["all", "zone-west", "x", "0" * 32])
)
ATTRIBUTES = st.dictionaries(
    st.text(max_size=5), st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=5)
)


bounds = st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=2, max_size=2).map(sorted)
kinds: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.just({"kind": "date"}),
    st.just({"kind": "boolean"}),
    st.just({"kind": "json"}),
    st.just({"kind": "currency"}),
    st.just({"kind": "amount", "currency": "EUR"}),
    st.builds(lambda b: {"kind": "integer", "min": b[0], "max": b[1]}, bounds),
    st.builds(lambda c: {"choices": c}, st.lists(st.sampled_from(["a", "b", "ü", "x y"]), min_size=1, unique=True)),
    st.builds(lambda n: {"max_chars": n}, st.integers(1, 4000)),
)
key_kinds: st.SearchStrategy[dict[str, Any]] = st.sampled_from([{}, {"kind": "date"}, {"choices": ["a", "b"]}])


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


@st.composite
def declarations(draw: st.DrawFn) -> str:
    """The text of a file with one context."""
    named = [{"name": f"k{n}"} | kind for n, kind in enumerate(draw(st.lists(key_kinds, min_size=1, max_size=4)))]
    held = [
        {"name": f"v{n}", "required": draw(st.booleans())} | kind
        for n, kind in enumerate(draw(st.lists(kinds, min_size=1, max_size=6)))
    ]
    texts = [each["name"] for each in named + held if "kind" not in each]
    search = draw(st.lists(st.sampled_from(texts), unique=True)) if texts else []
    body = {"name": "thing", "keys": named, "values": held, "search": search}
    return "[[context]]\n" + "".join(f"{name} = {_toml(value)}\n" for name, value in body.items())


def texts(chars_min: int, chars_max: int) -> st.SearchStrategy[str]:
    return st.text(
        st.characters(codec="utf-8", exclude_characters="\0"),
        min_size=chars_min,
        max_size=min(chars_max, 40),
    )


@st.composite
def schedules(draw: st.DrawFn) -> str:
    times = sorted(draw(st.sets(st.integers(0, 10**11), min_size=1, max_size=9)))
    steps = [
        [start, end, draw(st.integers(0, 10**12))] for start, end in zip(times[::2], [*times, None][1::2], strict=False)
    ]
    return json.dumps(steps, separators=(",", ":"))


def values(column: Column) -> st.SearchStrategy[Any]:
    match column.kind:
        case "choice":
            found: st.SearchStrategy[Any] = st.sampled_from(column.choices)
        case "currency":
            found = st.sampled_from(["EUR", "JPY", "BHD"])
        case "schedule":
            found = schedules()
        case "json":
            found = ATTRIBUTES.map(json.dumps)
        case "integer" | "amount" | "boolean":
            found = st.integers(column.at_least, column.at_most)
        case "date":
            found = st.dates().map(str)
        case _:
            found = texts(1 if column.required else 0, column.chars_max)
    return found if column.required else st.none() | found


def keys(context: Context) -> st.SearchStrategy[Row]:
    return st.tuples(*(values(c) for c in context.keys))


def contents(context: Context) -> st.SearchStrategy[Row]:
    return st.tuples(*(values(c) for c in context.values))


@st.composite
def lives(draw: st.DrawFn) -> Live:
    stream = draw(STREAMS)
    first = draw(st.integers(1, 2**40))
    dead = draw(st.lists(st.booleans(), max_size=6))
    rows, deleted = [], []
    for seq, gone in enumerate(dead, start=first):
        key = draw(keys(stream.context))
        if gone:
            deleted.append((seq, *key))
        else:
            rows.append((seq, *key, *draw(contents(stream.context))))
    changed = [draw(st.lists(st.sampled_from(stream.context.value_names), unique=True)) for _ in rows]
    before = draw(DIGESTS)
    after = draw(DIGESTS) if dead else before
    last = first + len(dead) - 1
    return Live(
        stream, draw(EPOCHS), first, last, before, after, draw(st.booleans()), draw(TIMES_MS), rows, deleted, changed
    )


@st.composite
def compacted(draw: st.DrawFn, stream: Stream, first: int, last: int) -> tuple[list[Row], list[Row]]:
    count = min(6, last - first + 1)
    seqs = draw(st.sets(st.integers(first, last), max_size=count)) if count > 0 else set()
    named = draw(st.lists(keys(stream.context), min_size=len(seqs), max_size=len(seqs), unique=True))
    rows: list[Row] = []
    deleted: list[Row] = []
    for seq, key in zip(sorted(seqs), named, strict=True):
        if draw(st.booleans()):
            rows.append((seq, *key, *draw(contents(stream.context))))
        else:
            deleted.append((seq, *key))
    return rows, deleted


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    stream = draw(STREAMS)
    first = draw(st.integers(1, 2**40))
    last = first + draw(st.integers(0, 50))
    return Segment(stream, draw(EPOCHS), first, last, *draw(compacted(stream, first, last)))


@st.composite
def heads(draw: st.DrawFn) -> Head:
    stream = draw(STREAMS)
    refs, at = [], 0
    for size in draw(st.lists(st.integers(1, 500), max_size=5)):
        refs.append(SegmentRef(at + 1, at + size, size, draw(st.integers(0, 131_072)), draw(DIGESTS) + draw(DIGESTS)))
        at += size
    seq = at + draw(st.integers(0, 20))
    rows, deleted = draw(compacted(stream, at + 1, seq))
    return Head(
        stream,
        draw(EPOCHS),
        seq,
        draw(DIGESTS),
        draw(st.integers(0, 2**40)),
        draw(st.integers(0, seq)),
        draw(TIMES_MS),
        tuple(refs),
        rows,
        deleted,
    )


STORE_IDS = st.sampled_from(["store-042", "s", "0" * 32])
SEQS = st.integers(1, 2**40)
REASONS = st.sampled_from(["oversized", "bad_json", "x"])
DATA = st.sampled_from(
    ["null", "1.10", '"é"', "[]", '{"till":3,"lines":[[1,-2],{"sku":"4011"}]}', "-9223372036854775808"]
)


@st.composite
def batches(draw: st.DrawFn) -> OutboxBatch:
    first = draw(SEQS)
    withheld = draw(st.lists(st.booleans(), min_size=1, max_size=6))
    seqs = list(enumerate(withheld, start=first))
    kinds = st.sampled_from(["sale.total", "x", "Stock_Count-2"])
    return OutboxBatch(
        draw(STORE_IDS),
        draw(EPOCHS),
        first,
        first + len(withheld) - 1,
        draw(st.integers(0, first - 1)),
        tuple(Entry(seq, draw(kinds), draw(TIMES_MS), draw(DATA)) for seq, gone in seqs if not gone),
        tuple(Refusal(seq, draw(REASONS)) for seq, gone in seqs if gone),
    )


@st.composite
def acks(draw: st.DrawFn) -> Ack:
    seq = draw(st.integers(0, 2**40))
    refused = draw(st.lists(st.integers(1, seq), max_size=4)) if seq else []
    first = draw(SEQS)
    rejected = Rejection(first, first + draw(st.integers(0, 9)), draw(REASONS)) if draw(st.booleans()) else None
    refusals = tuple(Refusal(s, draw(REASONS)) for s in refused)
    return Ack(draw(STORE_IDS), draw(EPOCHS), seq, refusals, draw(st.booleans()), rejected)


@st.composite
def statuses(draw: st.DrawFn) -> Status:
    states = st.sampled_from(STATES)
    verdicts = st.none() | st.booleans()
    times = st.integers(0, 2**40)
    spans = st.tuples(times, times).map(lambda span: f"{span[0]}-{span[1]}")
    reasons, details = st.sampled_from(sorted(REFUSAL_WORDS)), st.text(max_size=300).map(printable)
    refused = st.builds(MessageRefusal, st.sampled_from(["head", "live"]), st.none(), reasons, details, times, times)
    refused |= st.builds(MessageRefusal, st.just("segment"), spans, reasons, details, times, times)
    one = st.builds(
        StreamStatus, states, st.none() | EPOCHS, st.integers(0, 2**40), DIGESTS, verdicts, refusal=st.none() | refused
    )
    outbox = st.builds(OutboxStatus, EPOCHS, *(st.integers(0, 2**40),) * 3)
    return Status(
        draw(STORE_IDS),
        draw(states),
        draw(TIMES_MS),
        draw(st.dictionaries(STREAMS.map(str), one, max_size=3)),
        draw(st.none() | outbox),
        draw(st.dictionaries(st.sampled_from(["storenode", "sqlite"]), st.just("1"))),
        draw(st.none() | st.integers(-(2**45), 2**45)),
    )
