"""What travels from stores to HQ, and HQ's acknowledgements: entries, outbox batches, acks.

An entry's type and data are checked alike at the store and at HQ. Normative text: storelink/contract/README.md,
section 10.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec

from storelink.contract import codec
from storelink.contract.errors import ContractViolation
from storelink.contract.limits import (
    ACK_REFUSED_MAX,
    BATCH_ENTRIES_MAX,
    ENTRY_BYTES_MAX,
    ENTRY_DEPTH_MAX,
    ENTRY_TYPE_CHARS_MAX,
    SEQ_MAX,
)
from storelink.contract.messages import VERSION, Message, Seq, Text, attributes_of, check_version
from storelink.contract.streams import is_epoch, parse_store_topic, store_topic

ENTRY_COLUMNS = ("seq", "type", "at_ms", "data")

OVERRIDE_SET, OVERRIDE_WITHDRAWN = "storenode.override.set", "storenode.override.withdrawn"
"""Entries by which a store tells HQ of a price that it sets itself; see storelink/contract/README.md, section 10.4."""

Reason = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,39}\Z")]
Positive = Annotated[int, msgspec.Meta(ge=1, le=SEQ_MAX)]
_TYPE = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9._-]{{0,{ENTRY_TYPE_CHARS_MAX - 2}}}[A-Za-z0-9])?")
_BATCH_IDENT = re.compile(r"([0-9a-f]{12}-[0-9a-f]{8})/([1-9][0-9]{0,18})-([1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that store software told HQ. `data`: compact JSON text."""

    seq: int
    type: str
    at_ms: int
    data: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """An entry that cannot be taken; `reason` is a word to count by."""

    seq: int
    reason: str


@dataclass(frozen=True, slots=True)
class OutboxBatch:
    """The entries `first..last` of one outbox, contiguous: those that can travel, and those `withheld`.

    `outbox` is the outbox's epoch. `acked`: through which seq the store has HQ's acknowledgement.
    `refused` is never written: what a reader finds in breach of the rules, entry by entry.
    """

    store: str
    outbox: str
    first: int
    last: int
    acked: int
    entries: Sequence[Entry] = ()
    withheld: Sequence[Refusal] = ()
    refused: Sequence[Refusal] = ()


@dataclass(frozen=True, slots=True)
class Rejection:
    """A batch that HQ could not read, by its event id."""

    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ack:
    """All of the outbox up to `seq` is on HQ's disk, but for what is `refused`.

    `resend`: a batch came that begins behind `seq` + 1. `rejected`: one came that cannot be read.
    """

    store: str
    outbox: str
    seq: int
    refused: Sequence[Refusal] = ()
    resend: bool = False
    rejected: Rejection | None = None


class StoreBody(msgspec.Struct, kw_only=True):
    """What all bodies of upstream messages begin with."""

    version: Text
    store: Text


class _BatchBody(StoreBody, kw_only=True):
    outbox: Text
    columns: list[Text]
    first: Positive
    last: Positive
    acked: Seq
    entries: msgspec.Raw
    withheld: msgspec.Raw


class _AckBody(StoreBody, kw_only=True):
    outbox: Text
    seq: Seq
    resend: bool
    refused: msgspec.Raw
    rejected: tuple[Positive, Positive, Reason] | None


B = TypeVar("B", bound=StoreBody)


def checked_type(text: str) -> str:
    """Return the name of an entry's type (`sale.total`). Raises ContractViolation."""
    if not _TYPE.fullmatch(text):
        raise ContractViolation(
            "bad_name",
            f"type {text[:80]!r} must be 1 to {ENTRY_TYPE_CHARS_MAX} letters, digits, '.', '_' and '-',"
            " beginning and ending in a letter or digit",
            field="type",
        )
    return text


def checked_at_ms(at_ms: int) -> int:
    """Return an entry's time, in milliseconds since 1970. Raises ContractViolation for what no message can say."""
    if not 0 <= at_ms <= SEQ_MAX:
        raise ContractViolation("wrong_type", f"{at_ms} is no time since 1970 in milliseconds", field="at_ms")
    return at_ms


def checked_json(text: str | bytes) -> str:
    """
    Return one JSON value as compact text; its numbers and strings stay spelled as they came.

    Args:
        text: any JSON value, untrusted.

    Raises:
        ContractViolation: not strict JSON, nested too deep, a number out of range, or too large.
    """
    if len(text) > 2 * ENTRY_BYTES_MAX:
        raise _oversized(len(text))
    try:
        plain = text if isinstance(text, str) else text.decode("utf-8")
        value = codec.strict_json(plain)
        _check_portable(value)
        compact = msgspec.json.format(plain, indent=-1)
    except (UnicodeError, msgspec.MsgspecError, RecursionError) as error:
        raise ContractViolation("bad_json", str(error)[:200], field="data") from error
    size_bytes = len(compact.encode())
    if size_bytes > ENTRY_BYTES_MAX:
        raise _oversized(size_bytes)
    return compact


def encode_batch(root: str, batch: OutboxBatch, at_ms: int) -> Message:
    """Write one outbox batch. Raises ContractViolation, `oversized`, for more than HQ takes."""
    codec.check_count(len(batch.entries) + len(batch.withheld), BATCH_ENTRIES_MAX, "entries")
    body = {
        "outbox": batch.outbox,
        "columns": ENTRY_COLUMNS,
        "first": batch.first,
        "last": batch.last,
        "acked": batch.acked,
        "entries": [(e.seq, e.type, e.at_ms, msgspec.Raw(e.data.encode())) for e in batch.entries],
        "withheld": [(w.seq, w.reason) for w in batch.withheld],
    }
    return store_message(root, "outbox", batch.store, body, f"{batch.outbox}/{batch.first}-{batch.last}", at_ms)


def encode_ack(root: str, ack: Ack, at_ms: int) -> Message:
    """Write one acknowledgement. Raises ContractViolation, `oversized`, for more than a store takes."""
    codec.check_count(len(ack.refused), ACK_REFUSED_MAX, "refused")
    rejected = ack.rejected
    body = {
        "outbox": ack.outbox,
        "seq": ack.seq,
        "resend": ack.resend,
        "refused": [(r.seq, r.reason) for r in ack.refused],
        "rejected": (rejected.first, rejected.last, rejected.reason) if rejected else None,
    }
    return store_message(root, "ack", ack.store, body, f"{ack.outbox}/ack/{ack.seq}/{at_ms}", at_ms)


def decode_batch(root: str, message: Message) -> OutboxBatch:
    """
    Read one outbox batch; untrusted. An entry in breach of the rules is listed in `refused`, with its reason.

    Raises:
        ContractViolation: the batch as a whole cannot be used.
    """
    body = store_body(_BATCH, root, message, "outbox")
    check_epoch(body.outbox)
    if tuple(body.columns) != ENTRY_COLUMNS:
        raise ContractViolation("columns", f"an outbox batch has columns {ENTRY_COLUMNS}", field="columns")
    raw = codec.decode_part(_ENTRIES, body.entries, "entries")
    withheld = _refusals(body.withheld, "withheld")
    if body.last - body.first + 1 != len(raw) + len(withheld) or len(raw) + len(withheld) > BATCH_ENTRIES_MAX:
        raise ContractViolation("bad_range", f"batch {body.first}-{body.last} holds {len(raw)}+{len(withheld)} entries")
    if sorted([r[0] for r in raw] + [w.seq for w in withheld]) != list(range(body.first, body.last + 1)):
        raise ContractViolation("bad_range", "seqs of a batch must be contiguous")
    if body.acked >= body.first:
        raise ContractViolation("bad_range", f"batch {body.first}-{body.last} begins at or before {body.acked}")
    entries, refused = [], []
    for seq, kind, at_ms, data in raw:
        try:
            entries.append(Entry(seq, checked_type(kind), at_ms, checked_json(bytes(data))))
        except ContractViolation as violation:
            refused.append(Refusal(seq, violation.reason))
    return OutboxBatch(
        body.store, body.outbox, body.first, body.last, body.acked, tuple(entries), withheld, tuple(refused)
    )


def batch_named(message: Message) -> tuple[str, int, int] | None:
    """What an unreadable outbox batch says that it is, by its event id: (outbox, first, last)."""
    found = _BATCH_IDENT.fullmatch(message.attributes.get("id", ""))
    span = (int(found[2]), int(found[3])) if found else (0, 0)
    return (found[1], *span) if found and span[0] <= span[1] <= SEQ_MAX else None


def decode_ack(root: str, message: Message) -> Ack:
    """Read one acknowledgement; untrusted. Raises ContractViolation."""
    body = store_body(_ACK, root, message, "ack")
    check_epoch(body.outbox)
    refused = _refusals(body.refused, "refused")
    if any(r.seq > body.seq for r in refused):
        raise ContractViolation("bad_range", f"an acknowledgement of {body.seq} refuses what is behind it")
    rejected = Rejection(*body.rejected) if body.rejected else None
    if rejected is not None and rejected.last < rejected.first:
        raise ContractViolation("bad_range", f"rejected batch {rejected.first}-{rejected.last}")
    return Ack(body.store, body.outbox, body.seq, refused, body.resend, rejected)


def _refusals(raw: msgspec.Raw, what: str) -> tuple[Refusal, ...]:
    return tuple(Refusal(*pair) for pair in codec.decode_part(_REFUSALS, raw, what))


def check_epoch(epoch: str) -> None:
    """Raise ContractViolation unless it is written as one."""
    if not is_epoch(epoch):
        raise ContractViolation("wrong_type", f"epoch {epoch!r}")


def store_message(
    root: str, kind: str, store: str, body: dict[str, Any], ident: str, at_ms: int, *, retain: bool = False
) -> Message:
    """One upstream message."""
    payload, content_type = codec.pack(msgspec.json.encode({"version": VERSION, "store": store} | body))
    attributes = attributes_of(root, kind, f"store/{store}", ident, at_ms)
    return Message(store_topic(root, store, kind), payload, retain, content_type, attributes)


def store_body(decoder: msgspec.json.Decoder[B], root: str, message: Message, kind: str) -> B:
    """Read a body and check that it belongs to its topic; untrusted."""
    found, store = parse_store_topic(root, message.topic)
    if found != kind:
        raise ContractViolation("bad_topic", f"a {found} where a {kind} was expected")
    body = codec.decode(decoder, codec.unpack(message.payload, message.content_type))
    check_version(body.version)
    if body.store != store:
        raise ContractViolation("wrong_stream", f"{body.store!r} under the topic of {store}", field="store")
    return body


def _check_portable(value: Any) -> None:
    """Refuse what a reader in another language could not hold."""
    level, depth = [value], 0
    while level:
        deeper: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                deeper += [*each, *each.values()]
            elif isinstance(each, list):
                deeper += each
            elif isinstance(each, str):
                if "\0" in each:
                    raise ContractViolation("bad_json", "text with a NUL character", field="data")
            elif isinstance(each, float) and not math.isfinite(each):
                raise ContractViolation("bad_json", "a number out of range", field="data")
            elif isinstance(each, int) and not -SEQ_MAX - 1 <= each <= SEQ_MAX:
                raise ContractViolation("bad_json", "an integer beyond 63 bits", field="data")
        level, depth = deeper, depth + 1
        if depth > ENTRY_DEPTH_MAX + 1:
            raise ContractViolation("bad_json", f"nested deeper than {ENTRY_DEPTH_MAX}", field="data")


def _oversized(size_bytes: int) -> ContractViolation:
    return ContractViolation(
        "oversized", f"data of {size_bytes} bytes; an entry holds at most {ENTRY_BYTES_MAX}", field="data"
    )


_BATCH = msgspec.json.Decoder(_BatchBody)
_ACK = msgspec.json.Decoder(_AckBody)
_ENTRIES = msgspec.json.Decoder(
    Annotated[list[tuple[Positive, str, Seq, msgspec.Raw]], msgspec.Meta(max_length=BATCH_ENTRIES_MAX)]
)
_REFUSALS = msgspec.json.Decoder(
    Annotated[list[tuple[Positive, Reason]], msgspec.Meta(max_length=max(BATCH_ENTRIES_MAX, ACK_REFUSED_MAX))]
)
