"""The fetching of segments: a full window of subscriptions to exact topics, as the pace allows, into the spool."""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256

from storelink.contract.errors import ContractViolation
from storelink.contract.limits import FETCH_WINDOW
from storelink.contract.messages import SegmentRef
from storelink.contract.status import OTHER_BYTES
from storelink.contract.streams import Stream, segment_topic
from storelink.transport.port import Link
from storenode.core.rate_limit import Pace
from storenode.core.refusals import Refusals, span_of
from storenode.follow.spool import Spool

TIMEOUT_MS = 10_000
"""How long the broker may take to begin sending what was asked for."""

LINE_BYTES_PER_MS_MIN = 4
"""The thinnest line that a catch-up is made for, 32 kbit/s: one segment more is waited for at this rate."""


class Fetch:
    """What one stream's catch-up still lacks, and what of it has been asked for.

    `mono_ms` is monotonic, `wall_ms` since 1970.
    """

    def __init__(self, stream: Stream, root: str, spool: Spool, link: Link, pace: Pace, refusals: Refusals) -> None:
        self._stream = stream
        self._root = root
        self._spool = spool
        self._link = link
        self._pace = pace
        self._refusals = refusals
        self._wanted: dict[str, SegmentRef] = {}
        self._outstanding: dict[str, SegmentRef] = {}
        self._deadline_ms = 0

    @property
    def missing(self) -> int:
        """Segments that are not in the spool yet."""
        return len(self._wanted)

    def want(self, needed: Collection[SegmentRef], mono_ms: int) -> None:
        """Fetch exactly these; what is in the spool or on its way is not asked for again."""
        self._refusals.need({span_of(s) for s in needed})
        self._wanted = {s.sha256: s for s in needed if not self._spool.has(s.sha256)}
        gone = [t for t, s in self._outstanding.items() if s.sha256 not in self._wanted]
        for topic in gone:
            del self._outstanding[topic]
        if gone:
            self._link.unsubscribe(gone)
        self._wait(mono_ms)
        self.fill_window(mono_ms)

    def take(self, topic: str, payload: bytes, mono_ms: int, wall_ms: int) -> bool:
        """Accept a segment that was asked for; False: unasked, or not the bytes that the head promised."""
        ref = self._outstanding.get(topic)
        if ref is None:
            return False
        if sha256(payload).hexdigest() != ref.sha256:
            other = ContractViolation(OTHER_BYTES, f"{len(payload)} bytes came, the head names {ref.size_bytes} others")
            self._refusals.refuse("segment", span_of(ref), other, wall_ms)
            return False
        self._refusals.fetched(span_of(ref))
        del self._outstanding[topic]
        self._link.unsubscribe([topic])
        self._spool.put(ref.sha256, payload)
        self._wanted.pop(ref.sha256, None)
        self._wait(mono_ms)
        self.fill_window(mono_ms)
        return True

    def is_late(self, mono_ms: int) -> bool:
        """Whether what was asked for should have come by now; waiting for one's own pace is never late."""
        waits = bool(self._wanted) and not self._outstanding and not self._pace.allows(mono_ms)
        return not waits and mono_ms >= self._deadline_ms

    def abandon(self) -> None:
        """Give up what is on its way, to ask anew."""
        self._link.unsubscribe(list(self._outstanding))
        self.forget()

    def forget(self) -> None:
        """The connection is gone, and with it what had been asked for."""
        self._wanted.clear()
        self._outstanding.clear()

    def fill_window(self, mono_ms: int) -> None:
        """Ask for as much as window and pace allow."""
        if len(self._outstanding) == len(self._wanted):
            return
        asked = {s.sha256 for s in self._outstanding.values()}
        topics = []
        for digest, ref in self._wanted.items():
            if len(asked) >= FETCH_WINDOW or not self._pace.allows(mono_ms):
                break
            if digest not in asked:
                topic = segment_topic(self._root, self._stream, ref.first, ref.last)
                self._pace.charge(ref.size_bytes)
                self._outstanding[topic] = ref
                asked.add(digest)
                topics.append(topic)
        if topics:
            self._wait(mono_ms)
            self._link.subscribe(topics)

    def _wait(self, mono_ms: int) -> None:
        largest_bytes = max((s.size_bytes for s in self._outstanding.values()), default=0)
        self._deadline_ms = mono_ms + TIMEOUT_MS + largest_bytes // LINE_BYTES_PER_MS_MIN
