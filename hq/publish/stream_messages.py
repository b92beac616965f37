"""One stream's messages: live batches from the log, segments and head from the master.

Owned by the publisher's thread. What was sent but not acknowledged when the line broke is sent again:
stores count it as repeats. A head is built from one snapshot of the master that is younger than every
segment it lists, so segments and tail together hold each entity's newest row.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Self

from hq.master.context_migration import reshapes
from hq.master.store import EventRow, Master, StreamRow
from hq.publish.broker_check import is_sound
from hq.publish.publication import BrokerPosition, Publication
from hq.publish.segments import Segments
from hq.publish.sizes import Sizes, live_message, tail_fits
from storelink.contract.errors import ContractViolation
from storelink.contract.messages import Head, Live, Message, SegmentRef, encode_head, encode_live
from storelink.contract.rows import EMPTY
from storelink.contract.streams import Stream
from storelink.host.logs import get_logger

log = get_logger()

LIVE_EVENTS_MAX = 4_000
"""Events of one live batch, before its size is looked at."""

LIVE_EVENTS_MIN = 100
"""Events looked at for one live batch, however large their rows."""

LIVE_BACKLOG_MAX = 100_000
"""Unsent events beyond which stores are sent to the head instead."""


class StreamMessages:
    """
    Makes the messages of one stream in one epoch, and knows how far the broker has them.

    Attributes:
        segments: what is sealed of the stream.
        live_sent: the seq up to which live batches were made.
    """

    def __init__(
        self,
        stream: Stream,
        root: str,
        master: Master,
        publication: Publication,
        sizes: Sizes,
        position: BrokerPosition,
        segments: Segments,
        live_from: int,
    ) -> None:
        self.stream, self.segments = stream, segments
        self.live_sent = self._live_acked = live_from
        self._root, self._master, self._publication, self._sizes = root, master, publication, sizes
        self._position = position
        self._head_sent: BrokerPosition | None = None
        self._events_max = LIVE_EVENTS_MAX

    @classmethod
    def load(
        cls, stream: Stream, root: str, master: Master, publication: Publication, epoch: str, sizes: Sizes
    ) -> Self:
        """Go on from what the publication says that the broker has."""
        segments = Segments.load(stream, epoch, root, master, publication, sizes)
        position = publication.position(stream, epoch)
        # Older events are rows without the columns that were gained since; they only travel within segments.
        live_from = max([position.seq, *(r.seq for r in reshapes(master.query, stream.name))])
        return cls(stream, root, master, publication, sizes, position, segments, live_from)

    @property
    def epoch(self) -> str:
        return self._position.epoch

    @property
    def position(self) -> BrokerPosition:
        """What the broker has acknowledged."""
        return self._position

    def rewind(self) -> None:
        """The line broke: nothing that was not acknowledged counts as sent."""
        if self.live_sent != self._live_acked:
            self.live_sent = self._live_acked
            self.segments.recount()
        self._head_sent = None

    def skip_backlog(self, row: StreamRow) -> None:
        """Give up live batches for a backlog too long for them; heartbeat and head bring stores on."""
        if row.head_seq - self.live_sent > LIVE_BACKLOG_MAX:
            log.info("backlog.skipped", stream=str(self.stream), events=row.head_seq - self.live_sent)
            self.live_sent = self._live_acked = row.head_seq
            self.segments.recount()

    def next_live(self, row: StreamRow) -> tuple[Message, int] | None:
        """The next live batch and the seq it ends at; None when all is sent."""
        if self.live_sent >= row.head_seq:
            return None
        events = self._master.events_after(self.stream, self.live_sent, self._events_max)
        if not events:
            return None
        ends = [i for i, event in enumerate(events) if event.ends]
        if ends:
            events = events[: ends[-1] + 1]
        while (message := live_message(self._root, self._live(events), self._sizes.segment_bytes)) is None:
            events = events[: len(events) // 2]
        # Large rows are not read again for every batch; few events would hide where a change set ends.
        self._events_max = min(max(2 * len(events), LIVE_EVENTS_MIN), LIVE_EVENTS_MAX)
        self.live_sent = events[-1].seq
        for event in events:
            self.segments.moved(event.prev_seq)
        return message, events[-1].seq

    def acked_live(self, seq: int) -> None:
        """The broker has the live batches up to `seq`."""
        self._live_acked = max(self._live_acked, seq)

    def heartbeat(self, row: StreamRow, wall_ms: int) -> Message:
        """An empty batch that says: this is my newest, and its digest."""
        empty = Live(self.stream, self.epoch, row.head_seq + 1, row.head_seq, row.digest, row.digest, True, wall_ms)
        return encode_live(self._root, empty)

    def is_head_due(self, row: StreamRow) -> bool:
        """Whether the broker lacks a head of what the master has, and none is on its way."""
        has = self._position
        is_current = has.head_sha256 != "" and (has.seq, has.floor) == (row.head_seq, row.floor)
        return not is_current and self._head_sent is None

    def is_published(self, row: StreamRow) -> bool:
        """Whether the broker has all that the master has, and nothing is on its way."""
        return self.live_sent >= row.head_seq and self._head_sent is None and not self.is_head_due(row)

    def is_published_head(self, message: Message, row: StreamRow) -> bool:
        """Whether a message is the head that the broker acknowledged last, and the master has not gone back since."""
        return self._position.seq <= row.head_seq and is_sound(message, self._position.head_sha256)

    def head(self, wall_ms: int) -> tuple[Message, BrokerPosition] | None:
        """
        The head as of now, to be sent, and what the broker has once it acknowledges that: give it to `acked_head`.

        Returns:
            None while rows wait to be sealed or segments to be rewritten.

        Raises:
            ContractViolation: `oversized`: there are more segments than a head can list.
        """
        tail = self.segments.take_tail(self.live_sent)
        row = tail.stream
        if not self.segments.is_clean or tail.more or row.epoch != self.epoch:
            return None
        head = Head(
            self.stream,
            self.epoch,
            row.head_seq,
            row.digest,
            row.rows,
            row.floor,
            wall_ms,
            self.segments.refs,
            tail.rows,
            tail.deleted,
        )
        try:
            message = encode_head(self._root, head)
        except ContractViolation:
            if tail_fits(tail, self._sizes.tail_bytes):
                raise
            return None  # what has come since the sealing is to be sealed, too
        digest = sha256(message.payload).hexdigest()
        self._head_sent = BrokerPosition(self.epoch, row.head_seq, digest, row.floor)
        return message, self._head_sent

    def acked_head(self, position: BrokerPosition) -> None:
        """The broker has a head; one that was on its way when the broker was found to lack something is no news."""
        if position is self._head_sent:
            self._position, self._head_sent = position, None
            self._publication.set_position(self.stream, position)

    def seed_again(self) -> None:
        """The broker lost retained messages: everything in force goes out again."""
        self._publication.forget_acks(self.stream)
        self._forget_head()

    def lost_segment(self, ref: SegmentRef) -> None:
        """The broker lost or altered one segment: it goes out again, and then a head."""
        self._publication.set_acked(self.stream, self.epoch, (ref.first, ref.last, ref.sha256), acked=False)
        self._forget_head()

    def _forget_head(self) -> None:
        self._position = BrokerPosition(self.epoch, self._position.seq, "", self._position.floor)
        self._head_sent = None

    def _live(self, events: list[EventRow]) -> Live:
        first, last = events[0], events[-1]
        before = self._master.digest_at(self.stream, first.seq - 1) if first.seq > 1 else EMPTY
        upserts = [e for e in events if e.op == "upsert"]
        return Live(
            self.stream,
            self.epoch,
            first.seq,
            last.seq,
            before,
            last.digest,
            last.ends,
            last.at_ms,
            [e.row for e in upserts],
            [e.row for e in events if e.op == "delete"],
            [e.changed for e in upserts],
        )
