"""What one stream refuses, until it takes it or no longer needs it; a message is reported once it is refused again.

A message that is refused once is not reported: a head replaces a batch, and the next head a segment. Once it is refused
again, the stream does not move any more, and neither waiting nor fetching helps.
"""

from __future__ import annotations

from collections.abc import Collection

from storelink.contract.errors import ContractViolation
from storelink.contract.messages import SegmentRef
from storelink.contract.status import OTHER_BYTES, REFUSAL_KINDS, MessageRefusal, first_refusal

AGAIN = 2
"""Times from which on a refusal is reported."""

MESSAGES_MAX = 256
"""Messages of one stream that are counted; if there are more, those that came first."""


class Refusals:
    """Counts by message; `known`: what was reported before a restart."""

    def __init__(self, known: MessageRefusal | None) -> None:
        self._found = {} if known is None else {(known.message, known.range): known}

    @property
    def worst(self) -> MessageRefusal | None:
        """The one to report: it was refused again, and stops the stream first."""
        again = (found for found in self._found.values() if found.times >= AGAIN)
        return min(again, key=lambda found: (REFUSAL_KINDS.index(found.message), found.since_ms), default=None)

    @property
    def reported(self) -> str:
        """The reported refusal as a text; HQ is sent a status as soon as it changes."""
        found = self.worst
        return "" if found is None else f"{found.message}/{found.range}/{found.reason}/{found.since_ms}"

    def refuse(self, message: str, span: str | None, violation: ContractViolation, wall_ms: int) -> None:
        """Count a message that was refused; `span`: the range of a segment."""
        found = self._found.get((message, span))
        if found is not None:
            self._found[message, span] = found.again(violation)
        elif len(self._found) < MESSAGES_MAX:
            self._found[message, span] = first_refusal(message, span, violation, wall_ms)

    def accept(self, message: str) -> None:
        """A live message or a head was read."""
        self._found.pop((message, None), None)

    def fetched(self, span: str) -> None:
        """A segment came with the bytes that the head names; whether they can be read shows when they are applied."""
        found = self._found.get(("segment", span))
        if found is not None and found.reason == OTHER_BYTES:
            del self._found["segment", span]

    def need(self, spans: Collection[str]) -> None:
        """Only these segments are needed."""
        for message, span in [*self._found]:
            if span is not None and span not in spans:
                del self._found[message, span]

    def clear(self) -> None:
        """The stream has moved past all of it."""
        self._found.clear()


def span_of(ref: SegmentRef) -> str:
    """The range of a segment, as its topic has it."""
    return f"{ref.first}-{ref.last}"
