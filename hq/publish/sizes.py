"""What HQ aims for when it cuts rows into messages, and messages that keep both bounds on size, or none at all.

The bounds are those of `storelink.contract.limits`, kept by the writers of `storelink.contract.messages`: how large a
payload is as it travels, and how large its body is before compression.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from hq.master.records import Tail
from storelink.contract.codec import pack
from storelink.contract.errors import ContractViolation
from storelink.contract.limits import (
    MESSAGE_BYTES_MAX,
    ROWS_MAX,
    SEGMENT_BYTES_TARGET,
    TAIL_BODY_BYTES_TARGET,
    TAIL_BYTES_TARGET,
)
from storelink.contract.messages import Live, Message, Segment, encode_live, encode_segment

SEGMENT_BYTES_MAX = MESSAGE_BYTES_MAX - 8_192
"""A segment as it travels, unless it is a single row."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What HQ aims for; the simulation makes everything small to have much of it."""

    tail_bytes: int = TAIL_BYTES_TARGET
    segment_bytes: int = SEGMENT_BYTES_TARGET
    segment_rows: int = 3_000
    segment_rows_max: int = ROWS_MAX


def live_message(root: str, live: Live, size_bytes: int) -> Message | None:
    """One batch of at most `size_bytes` as it travels; None where several events are more than may travel."""
    alone = live.last == live.first
    try:
        message = encode_live(root, live)
    except ContractViolation:
        if alone:
            raise
        return None
    return message if len(message.payload) <= size_bytes or alone else None


def segment_message(root: str, segment: Segment, wall_ms: int) -> Message | None:
    """One segment; None where several rows are more than may travel."""
    alone = len(segment.rows) + len(segment.deleted) <= 1
    try:
        message = encode_segment(root, segment, wall_ms)
    except ContractViolation:
        if alone:
            raise
        return None
    return message if len(message.payload) <= SEGMENT_BYTES_MAX or alone else None


def tail_fits(tail: Tail, size_bytes: int) -> bool:
    """Whether a tail takes at most `size_bytes` in a head, and is not too large before compression; near enough."""
    body = msgspec.json.encode([tail.rows, tail.deleted])
    if len(body) <= size_bytes:
        return True
    try:
        return len(body) <= TAIL_BODY_BYTES_TARGET and len(pack(body)[0]) <= size_bytes
    except ContractViolation:
        return False
