"""One stream's way to the broker: what of it is sent when, and what is waited for.

In order: live batches, then segments, then - when those are acknowledged - the head that names them. Nothing is sent
while HQ audits what the broker keeps of the stream: it asks for the head, and goes by what comes, or does not.
Owned by the publisher's thread; it has no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial

from hq.master.records import StreamRow
from hq.publish.broker_check import BrokerCheck
from hq.publish.publication import Publication, SegmentName
from hq.publish.send_window import SendWindow
from hq.publish.stream_messages import StreamMessages
from storelink.contract.errors import ContractViolation
from storelink.contract.messages import Message, SegmentRef
from storelink.contract.streams import Stream, head_topic
from storelink.host.logs import get_logger
from storelink.transport.port import Link

log = get_logger()

SEGMENTS_MAX = 24
"""Segments of one stream in the window: a live batch never waits behind more."""

AUDIT_MS = 2_000
"""How long the broker may take to show the head that it keeps."""

SEAL_STEPS = 1
"""Segments sealed or rewritten in one step; live batches go first between them."""


def audit(root: str, link: Link, streams: Collection[StreamPublisher], mono_ms: int) -> None:
    """Ask the broker for the heads that it keeps of some streams."""
    topics = [head_topic(root, stream.stream) for stream in streams]
    for stream in streams:
        stream.begin_audit(mono_ms)
    if topics:
        link.unsubscribe(topics)
        link.subscribe(topics)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often what is sent."""

    head_interval_ms: int
    heartbeat_ms: int
    segment_grace_ms: int
    """How long the broker keeps a segment that was replaced."""


class StreamPublisher:
    """Sends one stream in one epoch, and holds all that the publisher knows of it."""

    def __init__(
        self, root: str, messages: StreamMessages, publication: Publication, link: Link, window: SendWindow, pace: Pace
    ) -> None:
        self._root, self._messages, self._publication = root, messages, publication
        self._link, self._window, self._pace = link, window, pace
        self._audit_until_ms: int | None = None
        self._check: BrokerCheck | None = None
        self._next_head_ms = self._next_heartbeat_ms = self._next_clearing_ms = 0
        self._is_sealed = False
        self._unsent: list[SegmentName] | None = None  # None: to be read from the publication
        self._on_the_way: set[SegmentName] = set()

    @property
    def stream(self) -> Stream:
        return self._messages.stream

    @property
    def epoch(self) -> str:
        return self._messages.epoch

    @property
    def in_audit(self) -> bool:
        """HQ has asked for the head that the broker keeps, and goes by what comes; until then it sends nothing."""
        return self._audit_until_ms is not None

    def awaits_head(self, mono_ms: int) -> bool:
        """Whether the head that was asked for may still come."""
        return self._audit_until_ms is not None and mono_ms < self._audit_until_ms

    @property
    def next_due_ms(self) -> int:
        """When there is something to do though nothing changes."""
        return min(self._next_heartbeat_ms, self._next_clearing_ms)

    def is_idle(self, row: StreamRow) -> bool:
        """Whether nothing is to be done before `next_due_ms`, unless the stream changes or the broker sends."""
        return not self.in_audit and self._check is None and self._messages.is_published(row)

    def begin_audit(self, mono_ms: int) -> None:
        """HQ asks the broker for the head that it keeps (`audit`): wait for that."""
        self._audit_until_ms = mono_ms + AUDIT_MS

    def line_lost(self) -> None:
        """What was not acknowledged does not count as sent."""
        self._messages.rewind()
        self._check = None
        self._on_the_way.clear()
        self._is_sealed = False

    def found_own_head(self, message: Message, row: StreamRow) -> bool:
        """End the audit if the broker keeps the head that was published last; its segments are checked next."""
        if not self._messages.is_published_head(message, row):
            return False
        self._audit_until_ms = None
        acked = self._publication.acked(self.stream, self.epoch)
        self._check = BrokerCheck(self._root, self.stream, acked, self._link)
        return True

    def found_foreign_head(self, mono_ms: int) -> None:
        """The broker keeps another master's head: no more is waited for, and it is replaced once HQ may publish."""
        self._audit_until_ms = mono_ms

    def seed(self) -> None:
        """The broker has lost what it kept of the stream, or altered it: all of it goes out again."""
        log.warning("broker.seeded", stream=str(self.stream))
        self._audit_until_ms = None
        self._next_head_ms = 0
        self._unsent = None
        self._messages.seed_again()

    def receive_segment(self, message: Message) -> None:
        """Take a segment that the broker keeps, if it was asked for."""
        if self._check is not None:
            found = self._check.take(message)
            self._seed_segments([] if found is None else [found])

    def send_live(self, row: StreamRow, mono_ms: int) -> bool:
        """Send live batches as far as the window goes; True when all are sent."""
        if self.in_audit:
            return True
        self._messages.skip_backlog(row)
        while not self._window.is_full:
            batch = self._messages.next_live(row)
            if batch is None:
                break
            message, seq = batch
            self._window.send(message, partial(self._messages.acked_live, seq))
            self._next_heartbeat_ms = mono_ms + self._pace.heartbeat_ms
        return self._messages.live_sent >= row.head_seq

    def send_rest(self, row: StreamRow, mono_ms: int, wall_ms: int) -> bool:
        """Send what else is due, live batches being sent; True when more could be done at once."""
        if self.awaits_head(mono_ms):
            return False
        if self.in_audit:
            self._link.unsubscribe([head_topic(self._root, self.stream)])
            self.seed()
        if mono_ms >= self._next_heartbeat_ms:
            self._window.send(self._messages.heartbeat(row, wall_ms))
            self._next_heartbeat_ms = mono_ms + self._pace.heartbeat_ms
        if mono_ms >= self._next_clearing_ms:
            self._next_clearing_ms = mono_ms + self._pace.heartbeat_ms
            self._clear_retired(wall_ms)
        if self._check is not None:
            self._seed_segments(self._check.step(mono_ms))
            self._check = None if self._check.is_done else self._check
        return self._send_head(row, mono_ms, wall_ms)

    def _seed_segments(self, lost: Iterable[SegmentRef]) -> None:
        """The broker kept the head, and lost or altered some of what it names: that goes out again, then a head."""
        for ref in lost:
            log.warning("segment.seeded", stream=str(self.stream), first_seq=ref.first, last_seq=ref.last)
            self._messages.lost_segment(ref)
            self._unsent, self._is_sealed = None, False

    def _send_head(self, row: StreamRow, mono_ms: int, wall_ms: int) -> bool:
        if not self._messages.is_head_due(row) or mono_ms < self._next_head_ms or self._window.is_full:
            return False
        if not self._is_sealed:
            self._is_sealed = self._messages.segments.seal(wall_ms, SEAL_STEPS)
            self._unsent = None
        if self._send_segments():
            return not self._is_sealed
        if not self._is_sealed:
            return True
        self._is_sealed = False
        try:
            made = self._messages.head(wall_ms)
        except ContractViolation as violation:
            log.error("head.oversized", stream=str(self.stream), detail=violation.detail)
            self._next_head_ms = mono_ms + self._pace.heartbeat_ms
            return False
        if made is None:
            return True
        message, position = made
        self._next_head_ms = mono_ms + self._pace.head_interval_ms
        self._window.send(message, partial(self._messages.acked_head, position))
        return False

    def _send_segments(self) -> bool:
        """Send the segments that the broker lacks; True while any is unacknowledged."""
        if self._unsent is None:
            self._unsent = self._publication.unsent(self.stream, self.epoch)
        for name in list(self._unsent):
            if self._window.is_full or len(self._on_the_way) >= SEGMENTS_MAX:
                break
            if name in self._on_the_way:
                continue
            message = self._publication.message(self.stream, self.epoch, name[:2])
            if message is not None:
                self._on_the_way.add(name)
                self._window.send(message, partial(self._acked_segment, name))
        return bool(self._unsent)

    def _acked_segment(self, name: SegmentName) -> None:
        self._publication.set_acked(self.stream, self.epoch, name)
        if self._unsent is not None and name in self._unsent:
            self._unsent.remove(name)
        self._on_the_way.discard(name)

    def _clear_retired(self, wall_ms: int) -> None:
        """Clear the retained copies of replaced segments whose grace is over."""
        for epoch, first, last, topic in self._publication.retired(self.stream, wall_ms - self._pace.segment_grace_ms):
            if self._publication.in_force(self.stream, topic):
                self._publication.remove(self.stream, epoch, (first, last))
            elif not self._window.is_full:
                forget = partial(self._publication.remove, self.stream, epoch, (first, last))
                self._window.send(Message(topic, b"", True), forget)
