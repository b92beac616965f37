"""What travels from HQ to stores: live batch, segment, head; and the `Message` that carries each.

Messages are CloudEvents 1.0 in MQTT's binary mode: the attributes are MQTT 5 user properties, the data is the payload
(CloudEvents "MQTT Protocol Binding" 1.0.2, section 3.1). Normative text: storelink/contract/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Annotated, Any, TypeVar, cast

import msgspec

from storelink.contract import codec
from storelink.contract.contexts import Contexts, Row, columns_differ
from storelink.contract.errors import ContractViolation
from storelink.contract.limits import MESSAGE_BYTES_MAX, ROWS_MAX, SEQ_MAX
from storelink.contract.rows import Held, check_compacted, check_row_count, read_rows
from storelink.contract.streams import Stream, head_topic, is_epoch, live_topic, parse_topic, segment_topic
from storelink.contract.times import rfc3339

VERSION = "1.0"
SPEC_VERSION = "1.0"
"""Of CloudEvents."""

Seq = Annotated[int, msgspec.Meta(ge=0, le=SEQ_MAX)]
Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Text = Annotated[str, msgspec.Meta(max_length=80)]


@dataclass(frozen=True, slots=True)
class Message:
    """One MQTT PUBLISH: what the contract makes and a link carries. An empty retained payload clears the topic."""

    topic: str
    payload: bytes
    retain: bool = False
    content_type: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


def attributes_of(root: str, kind: str, subject: str, ident: str, at_ms: int) -> dict[str, str]:
    """The context attributes of one event; `ident` is unique within its source."""
    return {
        "specversion": SPEC_VERSION,
        "id": ident,
        "source": f"/{root}/{subject}",
        "type": f"io.storenode.{kind}.v1",
        "subject": subject,
        "time": rfc3339(at_ms),
    }


class _Body(msgspec.Struct, kw_only=True):
    """What all bodies begin with."""

    version: Text
    stream: Text
    epoch: Text
    columns: list[Text]


B = TypeVar("B", bound=_Body)


class _LiveBody(_Body, kw_only=True):
    first: Seq
    last: Seq
    prev_digest: Hash
    digest: Hash
    commit: bool
    at_ms: Seq
    rows: msgspec.Raw
    deleted: msgspec.Raw
    changed: msgspec.Raw


class _SegmentBody(_Body, kw_only=True):
    first: Seq
    last: Seq
    rows: msgspec.Raw
    deleted: msgspec.Raw


class _HeadBody(_Body, kw_only=True):
    seq: Seq
    digest: Hash
    count: Seq
    floor: Seq
    at_ms: Seq
    segments: msgspec.Raw
    tail_rows: msgspec.Raw
    tail_deleted: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Live:
    """The changes `first..last`, contiguous; empty (`last == first - 1`) as a heartbeat.

    `rows` are whole rows in order of seq, `changed` names each one's changed columns, `deleted` holds
    `(seq, *keys)`, `held` what breaks a rule (a reader's finding; never written). `commit` says that `last` ends a
    change set. `digest` is the stream's after `last`.
    """

    stream: Stream
    epoch: str
    first: int
    last: int
    prev_digest: str
    digest: str
    commit: bool
    at_ms: int
    rows: Sequence[Row] = ()
    deleted: Sequence[Row] = ()
    changed: Sequence[Sequence[str]] = ()
    held: Sequence[Held] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """The newest version of each row whose seq lies in `first..last`, in order of seq."""

    stream: Stream
    epoch: str
    first: int
    last: int
    rows: Sequence[Row]
    deleted: Sequence[Row]
    held: Sequence[Held] = ()


@dataclass(frozen=True, slots=True)
class SegmentRef:
    """A segment as a head lists it; `rows` counts rows and tombstones."""

    first: int
    last: int
    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Head:
    """What a stream is at `seq`: segments cover `1..sealed`, the tail holds what is newer.

    `floor`: tombstones up to this seq are gone; a replica at a position in `1..floor-1` must rebuild.
    """

    stream: Stream
    epoch: str
    seq: int
    digest: str
    count: int
    floor: int
    at_ms: int
    segments: tuple[SegmentRef, ...]
    tail_rows: Sequence[Row]
    tail_deleted: Sequence[Row]
    tail_held: Sequence[Held] = ()

    @property
    def sealed(self) -> int:
        return self.segments[-1].last if self.segments else 0


def encode_live(root: str, live: Live) -> Message:
    body = _common(live.stream, live.epoch) | {
        "first": live.first,
        "last": live.last,
        "prev_digest": live.prev_digest,
        "digest": live.digest,
        "commit": live.commit,
        "at_ms": live.at_ms,
        "rows": live.rows,
        "deleted": live.deleted,
        "changed": live.changed,
    }
    ident = f"{live.epoch}/{live.first}-{live.last}"
    if live.last < live.first:
        ident += f"/{live.at_ms}"
    return _message(root, "live", live_topic(root, live.stream), live.stream, body, ident, live.at_ms, retain=False)


def encode_segment(root: str, segment: Segment, at_ms: int) -> Message:
    body = _common(segment.stream, segment.epoch) | {
        "first": segment.first,
        "last": segment.last,
        "rows": segment.rows,
        "deleted": segment.deleted,
    }
    topic = segment_topic(root, segment.stream, segment.first, segment.last)
    ident = f"{segment.epoch}/segment/{segment.first}-{segment.last}"
    return _message(root, "segment", topic, segment.stream, body, ident, at_ms, retain=True)


def encode_head(root: str, head: Head) -> Message:
    body = _common(head.stream, head.epoch) | {
        "seq": head.seq,
        "digest": head.digest,
        "count": head.count,
        "floor": head.floor,
        "at_ms": head.at_ms,
        "segments": [(s.first, s.last, s.rows, s.size_bytes, s.sha256) for s in head.segments],
        "tail_rows": head.tail_rows,
        "tail_deleted": head.tail_deleted,
    }
    ident = f"{head.epoch}/head/{head.seq}/{head.at_ms}"
    return _message(root, "head", head_topic(root, head.stream), head.stream, body, ident, head.at_ms, retain=True)


def decode_live(root: str, message: Message, contexts: Contexts) -> Live:
    """Read one live batch; untrusted. Raises ContractViolation."""
    stream, _ = _checked_topic(root, message, "live", contexts)
    body = _body(_LIVE, message, stream)
    rows, deleted, held, kept = read_rows(stream.context, body.rows, body.deleted)
    changed = codec.decode_part(_CHANGED, body.changed, "changed")
    if body.last < body.first - 1 or body.first < 1:
        raise ContractViolation("bad_range", f"batch {body.first}-{body.last}")
    if len(rows) + len(deleted) + len(held) != body.last - body.first + 1 or len(changed) != len(rows) + len(held):
        raise ContractViolation("bad_range", f"batch {body.first}-{body.last} holds {len(rows)}+{len(deleted)} changes")
    if sorted(cast(int, r[0]) for r in (*rows, *deleted, *held)) != list(range(body.first, body.last + 1)):
        raise ContractViolation("bad_range", "seqs of a batch must be contiguous")
    names = set(stream.context.value_names)
    if any(n not in names for fields in changed for n in fields):
        raise ContractViolation("wrong_type", "changed names an unknown column", field="changed")
    if body.last < body.first and body.digest != body.prev_digest:
        raise ContractViolation("bad_digest", "an empty batch cannot change the digest")
    return Live(
        stream,
        body.epoch,
        body.first,
        body.last,
        body.prev_digest,
        body.digest,
        body.commit,
        body.at_ms,
        rows,
        deleted,
        changed if kept is None else [changed[i] for i in kept],
        held,
    )


def decode_segment(root: str, message: Message, contexts: Contexts) -> Segment:
    """Read one segment; untrusted. Raises ContractViolation."""
    stream, span = _checked_topic(root, message, "segment", contexts)
    body = _body(_SEGMENT, message, stream)
    if span != (body.first, body.last) or not 1 <= body.first <= body.last:
        raise ContractViolation("bad_range", f"segment {body.first}-{body.last} under {message.topic[-60:]}")
    found = read_rows(stream.context, body.rows, body.deleted)
    check_compacted(stream.context, found, body.first, body.last)
    return Segment(stream, body.epoch, body.first, body.last, found.rows, found.deleted, found.held)


def decode_head(root: str, message: Message, contexts: Contexts) -> Head:
    """Read one head; untrusted. Raises ContractViolation."""
    stream, _ = _checked_topic(root, message, "head", contexts)
    body = _body(_HEAD, message, stream)
    listed = codec.decode_part(_SEGMENTS, body.segments, "segments")
    refs = tuple(SegmentRef(*entry) for entry in listed)
    expected = 1
    for ref in refs:
        if ref.first != expected or ref.last < ref.first or ref.size_bytes > MESSAGE_BYTES_MAX:
            raise ContractViolation("bad_range", f"segments must cover 1..sealed; found {ref.first}-{ref.last}")
        expected = ref.last + 1
    if expected - 1 > body.seq or body.floor > body.seq:
        raise ContractViolation("bad_range", f"head at {body.seq} lists more than it has")
    found = read_rows(stream.context, body.tail_rows, body.tail_deleted)
    check_compacted(stream.context, found, expected, body.seq)
    return Head(
        stream,
        body.epoch,
        body.seq,
        body.digest,
        body.count,
        body.floor,
        body.at_ms,
        refs,
        found.rows,
        found.deleted,
        found.held,
    )


def bytes_to_sign(
    kind: str, stream: Stream, epoch: str, span: tuple[int, int], digests: tuple[str, str], payload: bytes
) -> bytes:
    """What HQ's Ed25519 signature covers: lines of text, the last one the payload's SHA-256 as sent."""
    lines = ("storenode/1", kind, str(stream), epoch, f"{span[0]}-{span[1]}", *digests, sha256(payload).hexdigest())
    return "\n".join(lines).encode()


def check_version(version: str) -> None:
    """Raise ContractViolation unless this side reads messages of that version."""
    major, dot, minor = version.partition(".")
    if major != VERSION.partition(".")[0] or not dot or not (minor.isascii() and minor.isdecimal()):
        raise ContractViolation("version", f"version {version!r}; this side speaks {VERSION}", field="version")


def _common(stream: Stream, epoch: str) -> dict[str, Any]:
    return {
        "version": VERSION,
        "stream": str(stream),
        "epoch": epoch,
        "columns": stream.context.columns,
    }


def _message(
    root: str, kind: str, topic: str, stream: Stream, body: dict[str, Any], ident: str, at_ms: int, *, retain: bool
) -> Message:
    """One event. Raises ContractViolation, `oversized`, for what a reader would refuse."""
    check_row_count(sum(len(body[name]) for name in ("rows", "deleted", "tail_rows", "tail_deleted") if name in body))
    payload, content_type = codec.pack(msgspec.json.encode(body))
    attributes = attributes_of(root, kind, str(stream), ident, at_ms)
    return Message(topic, payload, retain, content_type, attributes)


def _checked_topic(root: str, message: Message, kind: str, contexts: Contexts) -> tuple[Stream, tuple[int, int] | None]:
    found, stream, span = parse_topic(root, message.topic, contexts)
    if found != kind:
        raise ContractViolation("bad_topic", f"a {found} where a {kind} was expected")
    return stream, span


def _body(decoder: msgspec.json.Decoder[B], message: Message, stream: Stream) -> B:
    body = codec.decode(decoder, codec.unpack(message.payload, message.content_type))
    check_version(body.version)
    if body.stream != str(stream):
        raise ContractViolation("wrong_stream", f"{body.stream!r} under the topic of {stream}", field="stream")
    if not is_epoch(body.epoch):
        raise ContractViolation("wrong_type", f"epoch {body.epoch!r}", field="epoch")
    if tuple(body.columns) != stream.context.columns:
        raise ContractViolation("columns", columns_differ(stream.context, body.columns), field="columns")
    return body


_LIVE = msgspec.json.Decoder(_LiveBody)
_SEGMENT = msgspec.json.Decoder(_SegmentBody)
_HEAD = msgspec.json.Decoder(_HeadBody)
_CHANGED = msgspec.json.Decoder(Annotated[list[list[Text]], msgspec.Meta(max_length=ROWS_MAX)])
_SEGMENTS = msgspec.json.Decoder(list[tuple[Seq, Seq, Seq, Seq, Sha256]])
