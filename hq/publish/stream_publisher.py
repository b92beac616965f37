"""One stream's way out: live batches from the log, segments and head from the master, in that order.

Owned by the publisher's thread. What was sent but not acknowledged when the line broke is sent again:
stores count it as repeats. A head is built from one snapshot of the master that is younger than every
segment it lists, so segments and tail together hold each entity's newest row.
"""

from __future__ import annotations

from bisect import bisect_right
from hashlib import sha256
from typing import cast

from hq.core.segment_plan import Rewrite, Sealed, rewrites
from hq.master.context_migration import reshapes
from hq.master.store import EventRow, Master, StreamRow, Tail
from hq.publish.publication import Publication, Published
from hq.publish.sizes import HeldSegment, Sizes, live_message, segment_message, tail_fits
from storelink.contract.codec import body_bytes
from storelink.contract.digest import EMPTY
from storelink.contract.errors import ContractViolation
from storelink.contract.limits import ROWS_MAX, SEGMENT_BODY_BYTES_TARGET
from storelink.contract.messages import Head, Live, Message, Segment, SegmentRef, encode_head, encode_live
from storelink.contract.streams import Stream
from storelink.host.logs import get_logger

log = get_logger()

LIVE_EVENTS_MAX = 4_000
"""Events of one live batch, before its size is looked at."""

LIVE_EVENTS_MIN = 100
"""Events looked at for one live batch, however large their rows."""

LIVE_BACKLOG_MAX = 100_000
"""Unsent events beyond which stores are sent to the head instead."""


class StreamPublisher:
    """Makes the messages of one stream; `hq.publish.publisher` sends them and reports what was acknowledged."""

    def __init__(
        self, stream: Stream, root: str, master: Master, publication: Publication, epoch: str, sizes: Sizes
    ) -> None:
        self.stream = stream
        self.epoch = epoch
        self._root = root
        self._master = master
        self._publication = publication
        refs = publication.segments(stream, epoch)
        if [s.first for s in refs] != [1, *(s.last + 1 for s in refs[:-1])][: len(refs)]:
            log.error("publication.damaged", stream=str(stream), segments=len(refs))
            publication.forget(stream)
            refs = []
        stored = publication.published(stream)
        self.published = stored.seq if stored and stored.epoch == epoch else 0
        # Older events are rows without the columns that were gained since; they only travel within segments.
        self.live_sent = self.live_acked = max(self.published, *(r.seq for r in reshapes(master.query, stream.name)), 0)
        self.head_sha256 = stored.head_sha256 if stored and stored.epoch == epoch else ""
        self.head_sent: int | None = None
        self._sizes = sizes
        self._rows_per_segment = sizes.segment_rows
        self._view: Tail | None = None
        self.floor = stored.floor if stored and stored.epoch == epoch else 0
        self._floor_told = self._floor_noticed = self.floor
        self._tainted: set[tuple[int, int]] = set()
        counts = master.count_by_range(stream, [(s.first, s.last) for s in refs])
        bodies = publication.body_bytes(stream, epoch)
        self._held = [HeldSegment(ref, bodies[ref.first], live) for ref, live in zip(refs, counts, strict=True)]
        self._events_max = LIVE_EVENTS_MAX

    @property
    def sealed(self) -> int:
        return self._held[-1].ref.last if self._held else 0

    def rewind(self) -> None:
        """The line broke: nothing that was not acknowledged counts as sent."""
        if self.live_sent != self.live_acked:
            self.live_sent = self.live_acked
            self._recount()
        self.head_sent = None

    def skip_backlog(self, row: StreamRow) -> None:
        """Give up live batches for a backlog too long for them; heartbeat and head bring stores on."""
        if row.head_seq - self.live_sent > LIVE_BACKLOG_MAX:
            log.info("backlog.skipped", stream=str(self.stream), events=row.head_seq - self.live_sent)
            self.live_sent = self.live_acked = row.head_seq
            self._recount()

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
            self._moved(event.prev_seq)
        return message, events[-1].seq

    def heartbeat(self, row: StreamRow, now_ms: int) -> Message:
        """An empty batch that says: this is my newest, and its digest."""
        empty = Live(self.stream, self.epoch, row.head_seq + 1, row.head_seq, row.digest, row.digest, True, now_ms)
        return encode_live(self._root, empty)

    def seal(self, now_ms: int, steps_max: int) -> bool:
        """Seal the tail and rewrite what has moved on; at most `steps_max` segments. True when nothing is left."""
        for _ in range(steps_max):
            view = self._master.tail(self.stream, self.sealed, self._rows_per_segment)
            self._notice_floor(view.stream.floor)
            if view.more or not tail_fits(view, self._sizes.tail_bytes):
                last = view.last_seq if view.more else view.stream.head_seq
                self._record(self.sealed + 1, last, now_ms)
            elif not self._rewrite(len(view.rows) + len(view.deleted), now_ms):
                self._view = view
                return True
        return False

    def head(self, now_ms: int) -> tuple[Message, int] | None:
        """
        The head as of now and its seq; None while rows wait to be sealed or segments to be acknowledged.

        Raises:
            ContractViolation: `oversized`: there are more segments than a head can list.
        """
        view, self._view = self._view, None
        if view is None or view.stream.head_seq < self.live_sent:
            view = self._master.tail(self.stream, self.sealed, ROWS_MAX)
        row = view.stream
        self._notice_floor(row.floor)
        if self._tainted or view.more or row.epoch != self.epoch:
            return None
        refs = tuple(h.ref for h in self._held)
        head = Head(
            self.stream,
            self.epoch,
            row.head_seq,
            row.digest,
            row.rows,
            row.floor,
            now_ms,
            refs,
            view.rows,
            view.deleted,
        )
        try:
            message = encode_head(self._root, head)
        except ContractViolation:
            if tail_fits(view, self._sizes.tail_bytes):
                raise
            return None  # what has come since the sealing is to be sealed, too
        self._floor_told = row.floor
        return message, row.head_seq

    def acked_live(self, seq: int) -> None:
        self.live_acked = max(self.live_acked, seq)

    def acked_head(self, seq: int, digest: str) -> None:
        """The broker has the last head made: that much is published."""
        self.published, self.floor = seq, self._floor_told
        self.head_sha256, self.head_sent = digest, None
        self._publication.set_published(self.stream, Published(self.epoch, seq, digest, self.floor))

    def seed_again(self) -> None:
        """The broker lost retained messages: everything in force goes out again."""
        self._publication.forget_acks(self.stream)
        self.head_sha256, self.head_sent = "", None

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

    def _notice_floor(self, floor: int) -> None:
        """
        Tombstones up to a risen floor are gone from the master: mark the segments that may hold what they deleted.

        To a store that fetches all segments, such a row would come back to life as soon as the segment that
        holds the tombstone is made anew. So no head goes out before the marked ones have been rewritten.
        """
        if floor > self._floor_noticed:
            self._floor_noticed = floor
            self._view = None
            self._recount(up_to=floor)
            old = (h for h in self._held if h.ref.first <= floor and h.live < h.ref.rows)
            self._tainted |= {(h.ref.first, h.ref.last) for h in old}

    def _cleansing(self) -> Rewrite:
        """The first marked segment, with its neighbour if that is marked too: so the two get new names."""
        at = next(i for i, h in enumerate(self._held) if (h.ref.first, h.ref.last) in self._tainted)
        first, last = self._held[at].ref.first, self._held[at].ref.last
        if at + 1 < len(self._held):
            neighbour = self._held[at + 1].ref
            if first == last or (neighbour.first, neighbour.last) in self._tainted:
                last = neighbour.last
        return Rewrite(first, last)

    def _rewrite(self, tail_rows: int, now_ms: int) -> bool:
        """Do the first rewrite that is due; False when there is none."""
        if self._tainted:
            cleansing = self._cleansing()
            self._record(cleansing.first, cleansing.last, now_ms)
            return True
        planned = self._planned(tail_rows)
        if not planned:
            return False
        # Counts err to one side: an event counted twice, a row that moved while it was sealed, make them too low.
        self._recount(planned[0].first, planned[-1].last)
        planned = self._planned(tail_rows)
        for rewrite in planned[:1]:
            self._record(rewrite.first, rewrite.last, now_ms)
        return bool(planned)

    def _planned(self, tail_rows: int) -> list[Rewrite]:
        """The plan without what would need a name that is taken: it waits until that is cleared."""
        state = [Sealed(h.ref.first, h.ref.last, h.ref.rows, h.live, h.filled) for h in self._held]
        plan = rewrites(state, self._rows_per_segment, tail_rows)
        in_force = {(s.first, s.last) for s in state}
        return [
            r
            for r in plan
            if (r.first < r.last if (r.first, r.last) in in_force else not self._is_taken(r.first, r.last))
        ]

    def _is_taken(self, first: int, last: int) -> bool:
        return self._publication.is_taken(self.stream, self.epoch, (first, last))

    def _record(self, first: int, last: int, now_ms: int) -> None:
        """Seal `first..last` into one segment, or into several where one would be too large or its name is taken."""
        self._view = None  # a head is younger than every segment it lists
        made: list[tuple[SegmentRef, Message]] = []
        at = first
        while at <= last:
            limit = self._rows_per_segment
            rows, deleted = self._master.rows_between(self.stream, at, last, limit + 1)
            seqs = sorted(cast(int, r[0]) for r in (*rows, *deleted))
            until = self._end(at, last, seqs, limit)
            rows = [r for r in rows if cast(int, r[0]) <= until]
            deleted = [r for r in deleted if cast(int, r[0]) <= until]
            count = len(rows) + len(deleted)
            message = segment_message(self._root, Segment(self.stream, self.epoch, at, until, rows, deleted), now_ms)
            if message is None:
                self._rows_per_segment = max(1, limit // 2)
                continue
            size = len(message.payload)
            if count == limit:
                self._adapt(count, size, body_bytes(message.payload))
            made.append((SegmentRef(at, until, count, size, sha256(message.payload).hexdigest()), message))
            at = until + 1
        self._publication.add(self.stream, self.epoch, made, now_ms)
        kept = [h for h in self._held if h.ref.last < first or h.ref.first > last]
        self._tainted = {span for span in self._tainted if span[1] < first or span[0] > last}
        new = [HeldSegment(ref, body_bytes(message.payload), ref.rows) for ref, message in made]
        self._held = sorted(kept + new, key=lambda h: h.ref.first)

    def _end(self, at: int, last: int, seqs: list[int], limit: int) -> int:
        """Where a segment from `at` on ends: at most `limit` of `seqs`; less while its name is taken."""
        if len(seqs) > limit:
            seqs, last = seqs[:limit], seqs[limit - 1]
        while last > at and self._is_taken(at, last):
            seqs = seqs[: len(seqs) // 2]
            last = seqs[-1] if seqs else (at + last) // 2
        return last

    def _adapt(self, count: int, size_bytes: int, body_size_bytes: int) -> None:
        """Let the next full segment come out at the size that is aimed for, before compression and after it."""
        compressed = count * self._sizes.segment_bytes // max(size_bytes, 1)
        fitting = min(compressed, count * SEGMENT_BODY_BYTES_TARGET // max(body_size_bytes, 1))
        bounds = self._sizes.segment_rows // 50 + 1, self._sizes.segment_rows_max
        self._rows_per_segment = max(bounds[0], min(bounds[1], fitting))

    def _moved(self, prev_seq: int) -> None:
        """An entity left the segment that holds its earlier row."""
        index = bisect_right(self._held, prev_seq, key=lambda h: h.ref.first) - 1
        if prev_seq and index >= 0 and self._held[index].ref.last >= prev_seq:
            self._held[index].live -= 1

    def _recount(self, since: int = 1, up_to: int | None = None) -> None:
        """Count anew the segments that touch `since..up_to`."""
        stale = [h for h in self._held if h.ref.last >= since and (up_to is None or h.ref.first <= up_to)]
        counts = self._master.count_by_range(self.stream, [(h.ref.first, h.ref.last) for h in stale])
        for held, live in zip(stale, counts, strict=True):
            held.live = live
