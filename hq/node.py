"""The turn of HQ's loop: what `hq run` does each time that something came in, or some time has passed.

One home for it: the daemon, the simulation and the tests all call `Node.turn`. Owned by one thread. It has no clock
and waits for nothing; the link delivers its events elsewhere, and the turn takes them from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from hq.collect.inbox import StoreInbox
from hq.collect.receiver import Receiver
from hq.collect.retention import InboxRetention
from hq.master.context_migration import left_out
from hq.master.retention import Retention
from hq.master.store import Master
from hq.publish.publication import Publication
from hq.publish.publisher import Publisher
from hq.publish.sizes import Sizes
from storelink.host.logs import get_logger
from storelink.transport.port import Link, LinkEvent, NotConnected

log = get_logger()

EVENTS_PER_TURN = 1_000

REPORT_EVERY_MS = 2_000
"""How often the node reports that it is at work, if nothing changes."""

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Options:
    """What of `hq.config.Settings` a turn goes by; the simulation makes everything small and fast."""

    head_interval_ms: int = 500
    heartbeat_ms: int = 5_000
    segment_grace_ms: int = 600_000
    tombstones_kept_ms: int = 90 * DAY_MS
    entries_kept_ms: int = 0
    prune_every_ms: int | None = None
    sizes: Sizes = field(default_factory=Sizes)
    take_over: bool = False


class Node:
    """Publishes the master, collects what stores send, and prunes both; a crash loses nothing that was acknowledged."""

    def __init__(
        self,
        master: Master,
        publication: Publication,
        publisher: Publisher,
        receiver: Receiver,
        retention: Retention,
        inbox_retention: InboxRetention,
        next_event: Callable[[], LinkEvent | None],
    ) -> None:
        self.publisher, self.receiver = publisher, receiver
        self._master, self._publication = master, publication
        self._retention, self._inbox_retention = retention, inbox_retention
        self._next_event = next_event
        self._left_out: dict[str, str] = {}
        self._foreign: list[tuple[str, str, int, int]] | None = None
        self._reported: tuple[bool, bool] | None = None
        self._next_report_ms = 0

    @classmethod
    def assemble(
        cls,
        root: str,
        master: Master,
        publication: Publication,
        inbox: StoreInbox,
        link: Link,
        next_event: Callable[[], LinkEvent | None],
        options: Options,
    ) -> Self:
        """
        Put HQ's parts together, each of them open.

        Args:
            link: sends; what it hears comes out of `next_event`, oldest first, and None when there is nothing.
        """
        publisher = Publisher.load(
            root,
            master,
            publication,
            link,
            head_interval_ms=options.head_interval_ms,
            heartbeat_ms=options.heartbeat_ms,
            segment_grace_ms=options.segment_grace_ms,
            sizes=options.sizes,
            take_over=options.take_over,
        )
        retention = Retention(master, options.tombstones_kept_ms, every_ms=options.prune_every_ms)
        inbox_retention = InboxRetention(inbox, options.entries_kept_ms)
        receiver = Receiver(root, inbox, link)
        return cls(master, publication, publisher, receiver, retention, inbox_retention, next_event)

    def turn(self, mono_ms: int, wall_ms: int) -> bool:
        """Take in what came, send what is due, and prune when nothing is. True when more can be done at once."""
        more = True  # events are left where the line breaks while they are taken in
        try:
            more = self._take_events(mono_ms, wall_ms)
            self.receiver.listen(may=self.publisher.may_publish)
            self.receiver.flush(mono_ms, wall_ms)
            more = self.publisher.step(mono_ms, wall_ms) or more
        except NotConnected:
            pass  # the Disconnected event is already on its way
        self._report(mono_ms, wall_ms)
        return more or self._retention.step(mono_ms, wall_ms) or self._inbox_retention.step(mono_ms, wall_ms)

    def stop(self, wall_ms: int) -> None:
        """Let other processes see that nothing is published any more."""
        self._publication.set_run(None, connected=False, wall_ms=wall_ms)

    def _take_events(self, mono_ms: int, wall_ms: int) -> bool:
        """Give each event to whom it concerns. True when there may be more of them."""
        for _ in range(EVENTS_PER_TURN):
            event = self._next_event()
            if event is None:
                return False
            if not self.receiver.handle(event, mono_ms, wall_ms):
                self.publisher.handle(event, mono_ms, wall_ms)
        return True

    def _report(self, mono_ms: int, wall_ms: int) -> None:
        """Let other processes see the state of this one, at once when it changes; log what is not published."""
        state = self.publisher.is_connected, self.publisher.heads.silent
        if state == self._reported and mono_ms < self._next_report_ms:
            return
        self._reported, self._next_report_ms = state, mono_ms + REPORT_EVERY_MS
        self._publication.set_run(os.getpid(), connected=self.publisher.is_connected, wall_ms=wall_ms)
        heads = self.publisher.heads.foreign
        foreign = sorted((name, max(head.epochs), head.seq, head.at_ms) for name, head in heads.items())
        if foreign != self._foreign:
            self._publication.set_foreign(foreign)
            self._foreign = foreign
        found = left_out(self._master.query, self._master.contexts)
        for name, reason in found.items():
            if self._left_out.get(name) != reason:
                log.error("context.left_out", context=name, reason=reason)
        self._left_out = found
