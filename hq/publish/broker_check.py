"""The broker check: after a connect HQ reads back the segments that the broker should keep, and finds what it lost.

A broker that died may have kept the head and lost, or altered, a segment that it names. No store could bootstrap then,
and HQ would not know. Owned by the publisher's thread; it has no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from hashlib import sha256

from storelink.contract.codec import content_type_of
from storelink.contract.messages import Message, SegmentRef
from storelink.contract.streams import Stream, segment_topic
from storelink.transport.port import Link

ASKED_MAX = 4
"""Segments asked for that have not come yet: live batches never wait behind more than these."""

WAIT_MS = 5_000
"""How long the broker may take to send the next of them; one that it does not keep never comes."""


class BrokerCheck:
    """The check of one stream's segments, over one connection."""

    def __init__(self, root: str, stream: Stream, refs: Iterable[SegmentRef], link: Link) -> None:
        self._link = link
        self._due = deque((segment_topic(root, stream, ref.first, ref.last), ref) for ref in refs)
        self._asked: dict[str, SegmentRef] = {}
        self._until_ms = 0

    @property
    def is_done(self) -> bool:
        return not self._due and not self._asked

    def step(self, mono_ms: int) -> list[SegmentRef]:
        """Ask for the next segments; returns those asked for that did not come in time."""
        late: list[SegmentRef] = []
        if self._asked and mono_ms >= self._until_ms:
            late = list(self._asked.values())
            self._link.unsubscribe(list(self._asked))
            self._asked.clear()
        topics: list[str] = []
        while self._due and len(self._asked) < ASKED_MAX:
            topic, ref = self._due.popleft()
            self._asked[topic] = ref
            topics.append(topic)
        if topics:
            self._until_ms = mono_ms + WAIT_MS
            self._link.subscribe(topics)
        return late

    def take(self, message: Message) -> SegmentRef | None:
        """Take what came; returns the segment if it is not what was published: then it is to be sent again."""
        ref = self._asked.pop(message.topic, None)
        if ref is None:
            return None
        self._link.unsubscribe([message.topic])
        return None if is_sound(message, ref.sha256) else ref


def is_sound(message: Message, digest: str) -> bool:
    """Whether a kept message is the one that was published, and stores can read it."""
    same = sha256(message.payload).hexdigest() == digest
    return same and message.content_type == content_type_of(message.payload)
