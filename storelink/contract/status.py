"""What a store says of itself, retained on its status topic.

Normative text: storelink/contract/README.md, section 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import msgspec

from storelink.contract import codec
from storelink.contract.errors import ContractViolation
from storelink.contract.limits import REFUSAL_DETAIL_CHARS_MAX, SEQ_MAX, STATUS_STREAMS_MAX, STATUS_VERSIONS_MAX
from storelink.contract.messages import Hash, Message, Seq, Text
from storelink.contract.refusal import KINDS, MessageRefusal, printable
from storelink.contract.streams import check_stream_name
from storelink.contract.upstream import StoreBody, check_epoch, store_body, store_message

OFFLINE = "offline"
TIME_MS_MAX = 253_402_300_799_999
"""The end of the year 9999: HQ writes it out."""

STATES = ("live", "catching_up", OFFLINE, "bootstrapping", "rebuilding", "diverged")


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
    if body.message not in KINDS or (body.message == "segment") != (body.range is not None):
        raise ContractViolation("wrong_type", f"a refusal of none of {', '.join(KINDS)}", field="refusal")
    return MessageRefusal(body.message, body.range, body.reason, printable(body.detail), body.since_ms, body.times)


_STATUS = msgspec.json.Decoder(_StatusBody)
