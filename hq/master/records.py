"""What the master hands out: streams, events and the outcome of a commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from storelink.contract.contexts import Row
from storelink.contract.streams import Stream


@dataclass(frozen=True, slots=True)
class StreamRow:
    """Where a stream's head is; `rows` counts live rows."""

    stream: Stream
    epoch: str
    head_seq: int
    digest: str
    rows: int
    floor: int


class EventRow(NamedTuple):
    """One event; `row` is the wire row, or `(seq, *keys)` of a delete; `digest` the stream's after it."""

    seq: int
    op: str
    changed: list[str]
    row: Row
    prev_seq: int
    digest: str
    ends: bool
    at_ms: int


@dataclass(frozen=True, slots=True)
class Committed:
    """What one commit did: events `first_seq..head_seq`; none if nothing changed."""

    stream: Stream
    first_seq: int
    head_seq: int

    @property
    def events(self) -> int:
        return self.head_seq - self.first_seq + 1


@dataclass(frozen=True, slots=True)
class Tail:
    """What is newer than some seq, and the stream, in one snapshot; `more` if a limit cut it at `last_seq`."""

    stream: StreamRow
    rows: list[Row]
    deleted: list[Row]
    more: bool
    last_seq: int
