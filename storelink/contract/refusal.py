"""A message of HQ's that a store refuses again and again: what both ends know of it, and say of it in the same words.

Normative text: storelink/contract/README.md, sections 6 and 10.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from storelink.contract.errors import ContractViolation
from storelink.contract.limits import BODY_BYTES_MAX, MESSAGE_BYTES_MAX, REFUSAL_DETAIL_CHARS_MAX
from storelink.contract.times import rfc3339

KINDS = ("head", "segment", "live")
"""What can be refused, what stops a stream first."""

OTHER_BYTES = "other_bytes"
"""A segment whose bytes are not those that the head names."""

WORDS: Mapping[str, str] = {
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
    What is refused (`message`: one of KINDS; `range`: of a segment, `first-last`) and why, as a ContractViolation says.

    `since_ms` is the first time, by the store's clock; `times` counts them all.
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


def first(message: str, span: str | None, violation: ContractViolation, wall_ms: int) -> MessageRefusal:
    """Note a message that is refused for the first time."""
    return MessageRefusal(message, span, violation.reason, printable(violation.detail), wall_ms)


def printable(detail: str) -> str:
    """Cut a detail short, and free it of control characters and lone surrogates: it may quote anybody's message."""
    short = detail[:REFUSAL_DETAIL_CHARS_MAX]
    return "".join(char if char.isprintable() else "?" for char in short)


def document(refusal: MessageRefusal | None) -> dict[str, Any] | None:
    """Return the member `refusal` of the JSON documents at both ends."""
    if refusal is None:
        return None
    return {
        "message": refusal.message,
        "range": refusal.range,
        "reason": refusal.reason,
        "why": WORDS.get(refusal.reason, refusal.reason),
        "detail": refusal.detail,
        "since": rfc3339(refusal.since_ms),
        "times": refusal.times,
    }


def sentence(stream: str, found: Mapping[str, Any]) -> str:
    """Say it in words; `found`: as `document` has it."""
    what = {"segment": f"segment {found['range']}", "live": "live messages", "head": "the head"}[found["message"]]
    times = "once" if found["times"] == 1 else f"{found['times']} times"
    return f"{stream}: refuses {what} since {found['since']}: {found['why']} ({found['detail']}; {times})"


def todo(found: Mapping[str, Any]) -> str:
    """Say what to do about it; `found`: as `document` has it."""
    match found["reason"]:
        case "columns":
            return "make the store's file of contexts HQ's, then systemctl restart storenode"
        case "epoch" | "other_bytes":
            return "at HQ: systemctl restart hq; it publishes anew what the broker lost or altered"
    return "HQ and store versions may differ: compare storenode --version with hq --version, upgrade the older one"
