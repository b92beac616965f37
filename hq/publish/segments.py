"""One stream's segments in force: sealed from the master, and rewritten as their rows move on or are pruned.

They cover every seq from 1 to `sealed`. Owned by the publisher's thread; the publication holds their bytes, so a
crash loses nothing but the count of live rows, which is taken anew from the master.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Self, cast

from hq.core.segment_plan import Rewrite, Sealed, rewrites
from hq.master.records import Tail
from hq.master.store import Master
from hq.publish.publication import Publication
from hq.publish.sizes import Sizes, segment_message, tail_fits
from storelink.contract.codec import body_bytes
from storelink.contract.limits import ROWS_MAX, SEGMENT_BODY_BYTES_TARGET, SEGMENT_BYTES_TARGET
from storelink.contract.messages import Message, Segment, SegmentRef
from storelink.contract.streams import Stream
from storelink.host.logs import get_logger

log = get_logger()


@dataclass(slots=True)
class SegmentInForce:
    """A segment with the count of its rows that are still their entities' newest."""

    ref: SegmentRef
    body_bytes: int
    live_rows: int

    @property
    def filled(self) -> float:
        """The share of a full segment that the live rows take, by the tighter of both sizes: `hq.core.segment_plan`."""
        share = max(self.ref.size_bytes / SEGMENT_BYTES_TARGET, self.body_bytes / SEGMENT_BODY_BYTES_TARGET)
        return share * self.live_rows / max(1, self.ref.rows)


class Segments:
    """What is sealed of one stream in one epoch."""

    def __init__(
        self,
        stream: Stream,
        epoch: str,
        root: str,
        master: Master,
        publication: Publication,
        sizes: Sizes,
        in_force: list[SegmentInForce],
        floor: int,
    ) -> None:
        self._stream, self._epoch, self._root = stream, epoch, root
        self._master, self._publication, self._sizes = master, publication, sizes
        self._in_force = in_force
        self._floor = floor
        self._tainted: set[tuple[int, int]] = set()
        self._rows_per_segment = sizes.segment_rows
        self._tail: Tail | None = None

    @classmethod
    def load(
        cls, stream: Stream, epoch: str, root: str, master: Master, publication: Publication, sizes: Sizes
    ) -> Self:
        """Read what the publication has of the stream; where that has a hole, all of it is forgotten and made anew."""
        refs = publication.segments(stream, epoch)
        if [s.first for s in refs] != [1, *(s.last + 1 for s in refs[:-1])][: len(refs)]:
            log.error("publication.damaged", stream=str(stream), segments=len(refs))
            publication.forget(stream)
            refs = []
        counts = master.count_by_range(stream, [(s.first, s.last) for s in refs])
        bodies = publication.body_bytes(stream, epoch)
        in_force = [SegmentInForce(ref, bodies[ref.first], live) for ref, live in zip(refs, counts, strict=True)]
        floor = publication.position(stream, epoch).floor
        return cls(stream, epoch, root, master, publication, sizes, in_force, floor)

    @property
    def sealed(self) -> int:
        """The seq up to which every row is in a segment."""
        return self._in_force[-1].ref.last if self._in_force else 0

    @property
    def refs(self) -> tuple[SegmentRef, ...]:
        return tuple(s.ref for s in self._in_force)

    @property
    def is_clean(self) -> bool:
        """Whether no segment waits to be rewritten because it may hold what a pruned tombstone deleted."""
        return not self._tainted

    def seal(self, wall_ms: int, steps_max: int) -> bool:
        """Seal the tail and rewrite what has moved on; at most `steps_max` segments. True when nothing is left."""
        for _ in range(steps_max):
            tail = self._master.tail(self._stream, self.sealed, self._rows_per_segment)
            self._notice_floor(tail.stream.floor)
            if tail.more or not tail_fits(tail, self._sizes.tail_bytes):
                last = tail.last_seq if tail.more else tail.stream.head_seq
                self._record(self.sealed + 1, last, wall_ms)
            elif not self._rewrite(len(tail.rows) + len(tail.deleted), wall_ms):
                self._tail = tail
                return True
        return False

    def take_tail(self, head_seq_min: int) -> Tail:
        """
        What is not sealed, in a snapshot of the master that is younger than every segment.

        Args:
            head_seq_min: the stream's head in the snapshot; one taken while sealing counts only if it is not older.
        """
        tail, self._tail = self._tail, None
        if tail is None or tail.stream.head_seq < head_seq_min:
            tail = self._master.tail(self._stream, self.sealed, ROWS_MAX)
        self._notice_floor(tail.stream.floor)
        return tail

    def moved(self, prev_seq: int) -> None:
        """An entity left the segment that holds its earlier row."""
        index = bisect_right(self._in_force, prev_seq, key=lambda s: s.ref.first) - 1
        if prev_seq and index >= 0 and self._in_force[index].ref.last >= prev_seq:
            self._in_force[index].live_rows -= 1

    def recount(self, since: int = 1, up_to: int | None = None) -> None:
        """Count anew the live rows of the segments that touch `since..up_to`."""
        stale = [s for s in self._in_force if s.ref.last >= since and (up_to is None or s.ref.first <= up_to)]
        counts = self._master.count_by_range(self._stream, [(s.ref.first, s.ref.last) for s in stale])
        for segment, live in zip(stale, counts, strict=True):
            segment.live_rows = live

    def _notice_floor(self, floor: int) -> None:
        """
        Tombstones up to a risen floor are gone from the master: mark the segments that may hold what they deleted.

        To a store that fetches all segments, such a row would come back to life as soon as the segment that
        holds the tombstone is made anew. So no head goes out before the marked ones have been rewritten.
        """
        if floor > self._floor:
            self._floor = floor
            self._tail = None
            self.recount(up_to=floor)
            old = (s for s in self._in_force if s.ref.first <= floor and s.live_rows < s.ref.rows)
            self._tainted |= {(s.ref.first, s.ref.last) for s in old}

    def _cleansing(self) -> Rewrite:
        """The first marked segment, with its neighbour if that is marked too: so the two get new names."""
        at = next(i for i, s in enumerate(self._in_force) if (s.ref.first, s.ref.last) in self._tainted)
        first, last = self._in_force[at].ref.first, self._in_force[at].ref.last
        if at + 1 < len(self._in_force):
            neighbour = self._in_force[at + 1].ref
            if first == last or (neighbour.first, neighbour.last) in self._tainted:
                last = neighbour.last
        return Rewrite(first, last)

    def _rewrite(self, tail_rows: int, wall_ms: int) -> bool:
        """Do the first rewrite that is due; False when there is none."""
        if self._tainted:
            cleansing = self._cleansing()
            self._record(cleansing.first, cleansing.last, wall_ms)
            return True
        planned = self._planned(tail_rows)
        if not planned:
            return False
        # Counts err to one side: an event counted twice, a row that moved while it was sealed, make them too low.
        self.recount(planned[0].first, planned[-1].last)
        planned = self._planned(tail_rows)
        for rewrite in planned[:1]:
            self._record(rewrite.first, rewrite.last, wall_ms)
        return bool(planned)

    def _planned(self, tail_rows: int) -> list[Rewrite]:
        """The plan without what would need a name that is taken: it waits until that is cleared."""
        state = [Sealed(s.ref.first, s.ref.last, s.ref.rows, s.live_rows, s.filled) for s in self._in_force]
        plan = rewrites(state, self._rows_per_segment, tail_rows)
        in_force = {(s.first, s.last) for s in state}
        return [
            r
            for r in plan
            if (r.first < r.last if (r.first, r.last) in in_force else not self._is_taken(r.first, r.last))
        ]

    def _is_taken(self, first: int, last: int) -> bool:
        return self._publication.is_taken(self._stream, self._epoch, (first, last))

    def _record(self, first: int, last: int, wall_ms: int) -> None:
        """Seal `first..last` into one segment, or into several where one would be too large or its name is taken."""
        self._tail = None  # a head is younger than every segment it lists
        made: list[tuple[SegmentRef, Message]] = []
        at = first
        while at <= last:
            limit = self._rows_per_segment
            rows, deleted = self._master.rows_between(self._stream, at, last, limit + 1)
            seqs = sorted(cast(int, r[0]) for r in (*rows, *deleted))
            until = self._end(at, last, seqs, limit)
            rows = [r for r in rows if cast(int, r[0]) <= until]
            deleted = [r for r in deleted if cast(int, r[0]) <= until]
            count = len(rows) + len(deleted)
            message = segment_message(self._root, Segment(self._stream, self._epoch, at, until, rows, deleted), wall_ms)
            if message is None:
                self._rows_per_segment = max(1, limit // 2)
                continue
            size = len(message.payload)
            if count == limit:
                self._adapt(count, size, body_bytes(message.payload))
            made.append((SegmentRef(at, until, count, size, sha256(message.payload).hexdigest()), message))
            at = until + 1
        self._publication.add(self._stream, self._epoch, made, wall_ms)
        kept = [s for s in self._in_force if s.ref.last < first or s.ref.first > last]
        self._tainted = {span for span in self._tainted if span[1] < first or span[0] > last}
        new = [SegmentInForce(ref, body_bytes(message.payload), ref.rows) for ref, message in made]
        self._in_force = sorted(kept + new, key=lambda s: s.ref.first)

    def _end(self, at: int, last: int, seqs: Sequence[int], limit: int) -> int:
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
