"""What a store says of itself, retained on its status topic; and what both ends say of a message that it refuses.

Normative text: storelink/contract/README.md, sections 6 and 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import msgspec

from storelink.contract import codec
from storelink.contract.errors import ContractViolation
from storelink.contract.limits import (
    BODY_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    REFUSAL_DETAIL_CHARS_MAX,
    SEQ_MAX,
    STATUS_STREAMS_MAX,
    STATUS_VERSIONS_MAX,
)
from storelink.contract.messages import Hash, Message, Seq, Text
from storelink.contract.streams import check_stream_name
from storelink.contract.times import rfc3339
from storelink.contract.upstream import StoreBody, check_epoch, store_body, store_message

OFFLINE = "offline"
TIME_MS_MAX = 253_402_300_799_999
"""The end of the year 9999: HQ writes it out."""

STATES = ("live", "catching_up", OFFLINE, "bootstrapping", "rebuilding", "diverged")


REFUSAL_KINDS = ("head", "segment", "live")
"""What can be refused, what stops a stream first."""

OTHER_BYTES = "other_bytes"
"""A segment whose bytes are not those that the head names."""

REFUSAL_WORDS: Mapping[str, str] = {
    "bad_digest": "it is empty and changes the digest",
    "bad_json": "it is not strict JSON",
    "bad_name": "it has a name that cannot stand in a topic",
    "bad_range": "its changes do not fit its range",
    "bad_schedule": "a schedule of prices in it is wrong",
    "bad_stream": "its context or stream is not declared here",
    "bad_topic": "it is under a topic of another kind",
    "bad_zstd": "it cannot be unpacked",
    "columns": "HQ's columns are not those declared here",
    "content_type": "it is neither JSON nor zstd",
    "duplicate_key": "it names a key twice",
    "epoch": "it is of another epoch than the head that names it",
    OTHER_BYTES: "its bytes are not those that the head names",
    "oversized": f"it is too large: {MESSAGE_BYTES_MAX:,} bytes as sent and {BODY_BYTES_MAX:,} unpacked are the limit",
    "version": "it is of a version of the protocol that this store does not read",
    "wrong_stream": "it belongs to another stream",
    "wrong_type": "a member of it is missing, of another type, or out of bounds",
}


@dataclass(frozen=True, slots=True)
class MessageRefusal:
    """
    What is refused and why, as a ContractViolation says.

    `message`: one of REFUSAL_KINDS; `range`: of a segment, `first-last`. `since_ms` is the first time, by the store's
    clock; `times` counts them all.
    """

    message: str
    range: str | None
    reason: str
    detail: str
    since_ms: int
    times: int = 1

    def again(self, violation: ContractViolation) -> MessageRefusal:
        """Count it once more; keep what was wrong with it last."""
        reason, detail = violation.reason, printable(violation.detail)
        return MessageRefusal(self.message, self.range, reason, detail, self.since_ms, self.times + 1)

    def as_json(self) -> str:
        """How a store's replica keeps it."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | None) -> MessageRefusal | None:
        """Read what `as_json` wrote."""
        return None if text is None else msgspec.json.decode(text, type=cls)


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """
    The state of one stream in a store; epoch None: never bootstrapped. `rebuild_reason`: why it last was rebuilt.

    `refusal`: the message of HQ that it refuses again and again, if there is one.
    """

    state: str
    epoch: str | None
    position: int
    digest: str
    verified_ok: bool | None = None
    quarantined: int = 0
    rebuilt_at_ms: int | None = None
    rebuild_reason: str | None = None
    refusal: MessageRefusal | None = None


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """An outbox as its store sees it; `refused`: how many entries HQ refused."""

    epoch: str
    pending: int
    acked_seq: int
    refused: int


@dataclass(frozen=True, slots=True)
class Status:
    """What a store says of itself; as a last will only `state` offline, and nothing else.

    `skew_ms`: how far the store's clock is ahead of HQ's; None where that was not measured.
    """

    store: str
    state: str
    at_ms: int
    streams: Mapping[str, StreamStatus] = field(default_factory=dict)
    outbox: OutboxStatus | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    skew_ms: int | None = None


class _RefusalBody(msgspec.Struct, kw_only=True):
    message: Text
    range: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,19}-[0-9]{1,19}\Z")] | None
    reason: Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,40}\Z")]
    detail: Annotated[str, msgspec.Meta(max_length=REFUSAL_DETAIL_CHARS_MAX)]
    since_ms: Annotated[int, msgspec.Meta(ge=0, le=TIME_MS_MAX)]
    times: Seq


class _StreamBody(msgspec.Struct, kw_only=True):
    state: Text
    epoch: Text | None
    position: Seq
    digest: Hash
    verified_ok: bool | None
    quarantined: Seq = 0
    rebuilt_at_ms: Seq | None = None
    rebuild_reason: Text | None = None
    refusal: _RefusalBody | None = None


class _OutboxBody(msgspec.Struct, kw_only=True):
    epoch: Text
    pending: Seq
    acked_seq: Seq
    refused: Seq


class _StatusBody(StoreBody, kw_only=True):
    state: Text
    at_ms: Seq
    streams: Annotated[dict[Text, _StreamBody], msgspec.Meta(max_length=STATUS_STREAMS_MAX)] = msgspec.field(
        default_factory=dict
    )
    outbox: _OutboxBody | None = None
    versions: Annotated[dict[Text, Text], msgspec.Meta(max_length=STATUS_VERSIONS_MAX)] = msgspec.field(
        default_factory=dict
    )
    skew_ms: Annotated[int, msgspec.Meta(ge=-SEQ_MAX, le=SEQ_MAX)] | None = None


def encode_status(root: str, status: Status) -> Message:
    """Write one status. Raises ContractViolation, `oversized`, for more than HQ takes."""
    codec.check_count(len(status.streams), STATUS_STREAMS_MAX, "streams")
    codec.check_count(len(status.versions), STATUS_VERSIONS_MAX, "versions")
    body: dict[str, Any] = {"state": status.state, "at_ms": status.at_ms}
    if status.streams or status.outbox or status.versions:
        streams = {name: _body_of(stream) for name, stream in status.streams.items()}
        body |= {"streams": streams, "outbox": status.outbox, "versions": status.versions}
    if status.skew_ms is not None:
        body["skew_ms"] = status.skew_ms
    ident = f"status/{status.at_ms}/{status.state}"
    return store_message(root, "status", status.store, body, ident, status.at_ms, retain=True)


def _body_of(stream: StreamStatus) -> dict[str, Any]:
    """What all versions of the protocol know, and what this one adds where there is something to say."""
    members = asdict(stream)
    added = ("quarantined", "rebuilt_at_ms", "rebuild_reason", "refusal")
    return {name: value for name, value in members.items() if name not in added or value}


def decode_status(root: str, message: Message) -> Status:
    """Read one status; untrusted. Raises ContractViolation."""
    body = store_body(_STATUS, root, message, "status")
    states = [body.state, *(s.state for s in body.streams.values())]
    if any(state not in STATES for state in states):
        raise ContractViolation("wrong_type", f"a state that is none of {', '.join(STATES)}", field="state")
    streams = {}
    for name, s in body.streams.items():
        check_stream_name(name)  # HQ may lack a store's declaration
        if s.epoch is not None:
            check_epoch(s.epoch)
        members = {field: getattr(s, field) for field in s.__struct_fields__}
        streams[name] = StreamStatus(**members | {"refusal": _refusal(s.refusal)})
    outbox = None
    if body.outbox is not None:
        check_epoch(body.outbox.epoch)
        outbox = OutboxStatus(*(getattr(body.outbox, name) for name in body.outbox.__struct_fields__))
    return Status(body.store, body.state, body.at_ms, streams, outbox, body.versions, body.skew_ms)


def _refusal(body: _RefusalBody | None) -> MessageRefusal | None:
    if body is None:
        return None
    if body.message not in REFUSAL_KINDS or (body.message == "segment") != (body.range is not None):
        raise ContractViolation("wrong_type", f"a refusal of none of {', '.join(REFUSAL_KINDS)}", field="refusal")
    return MessageRefusal(body.message, body.range, body.reason, printable(body.detail), body.since_ms, body.times)


_STATUS = msgspec.json.Decoder(_StatusBody)


def first_refusal(message: str, span: str | None, violation: ContractViolation, wall_ms: int) -> MessageRefusal:
    """Note a message that is refused for the first time."""
    return MessageRefusal(message, span, violation.reason, printable(violation.detail), wall_ms)


def printable(detail: str) -> str:
    """Cut a detail short, and free it of control characters and lone surrogates: it may quote anybody's message."""
    short = detail[:REFUSAL_DETAIL_CHARS_MAX]
    return "".join(char if char.isprintable() else "?" for char in short)


def refusal_document(refusal: MessageRefusal | None) -> dict[str, Any] | None:
    """Return the member `refusal` of the JSON documents at both ends."""
    if refusal is None:
        return None
    return {
        "message": refusal.message,
        "range": refusal.range,
        "reason": refusal.reason,
        "why": REFUSAL_WORDS.get(refusal.reason, refusal.reason),
        "detail": refusal.detail,
        "since": rfc3339(refusal.since_ms),
        "times": refusal.times,
    }


def refusal_sentence(stream: str, found: Mapping[str, Any]) -> str:
    """Say it in words; `found`: as `refusal_document` has it."""
    what = {"segment": f"segment {found['range']}", "live": "live messages", "head": "the head"}[found["message"]]
    times = "once" if found["times"] == 1 else f"{found['times']} times"
    return f"{stream}: refuses {what} since {found['since']}: {found['why']} ({found['detail']}; {times})"


def refusal_hint(found: Mapping[str, Any]) -> str:
    """Say what to do about it; `found`: as `refusal_document` has it."""
    match found["reason"]:
        case "columns":
            return "make the store's file of contexts HQ's, then systemctl restart storenode"
        case "epoch" | "other_bytes":
            return "at HQ: systemctl restart hq; it publishes anew what the broker lost or altered"
    return "HQ and store versions may differ: compare storenode --version with hq --version, upgrade the older one"
