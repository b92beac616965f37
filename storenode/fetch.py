"""The fetching of segments: a full window of subscriptions to exact topics, into the spool."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from contract.limits import FETCH_WINDOW
from contract.messages import SegmentRef
from contract.streams import Stream, segment_topic
from link.port import Link
from storenode.spool import Spool


class Fetch:
    """What one stream's catch-up still lacks, and what of it has been asked for."""

    def __init__(self, stream: Stream, root: str, spool: Spool, link: Link) -> None:
        self._stream = stream
        self._root = root
        self._spool = spool
        self._link = link
        self._wanted: dict[str, SegmentRef] = {}
        self._outstanding: dict[str, SegmentRef] = {}

    @property
    def missing(self) -> int:
        """Segments that are not in the spool yet."""
        return len(self._wanted)

    def want(self, needed: Iterable[SegmentRef]) -> None:
        """Fetch exactly these; what is in the spool or on its way is not asked for again."""
        self._wanted = {s.sha256: s for s in needed if not self._spool.has(s.sha256)}
        gone = [t for t, s in self._outstanding.items() if s.sha256 not in self._wanted]
        for topic in gone:
            del self._outstanding[topic]
        if gone:
            self._link.unsubscribe(gone)
        self._fill_window()

    def take(self, topic: str, payload: bytes) -> bool:
        """Accept a segment that was asked for; False: unasked, or not the bytes that the head promised."""
        ref = self._outstanding.get(topic)
        if ref is None or sha256(payload).hexdigest() != ref.sha256:
            return False
        del self._outstanding[topic]
        self._link.unsubscribe([topic])
        self._spool.put(ref.sha256, payload)
        self._wanted.pop(ref.sha256, None)
        self._fill_window()
        return True

    def abandon(self) -> None:
        """Give up what is on its way, to ask anew."""
        self._link.unsubscribe(list(self._outstanding))
        self.forget()

    def forget(self) -> None:
        """The connection is gone, and with it what had been asked for."""
        self._wanted.clear()
        self._outstanding.clear()

    def _fill_window(self) -> None:
        asked = {s.sha256 for s in self._outstanding.values()}
        topics = []
        for digest, ref in self._wanted.items():
            if len(asked) >= FETCH_WINDOW:
                break
            if digest not in asked:
                topic = segment_topic(self._root, self._stream, ref.first, ref.last)
                self._outstanding[topic] = ref
                asked.add(digest)
                topics.append(topic)
        if topics:
            self._link.subscribe(topics)
