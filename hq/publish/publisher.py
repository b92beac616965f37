"""The publisher: keeps the broker equal to the master, whatever the line and the broker do.

Owned by one thread. It has no clock and no thread: `handle` and `step` get the time. Order per stream:
live batches, then segments, then - when those are acknowledged - the head that names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256

from hq.master.store import Master, StreamRow
from hq.publish.broker_check import BrokerCheck, is_sound
from hq.publish.broker_heads import BrokerHeads, KeptHead, Verdict
from hq.publish.publication import Publication
from hq.publish.route import Route
from hq.publish.sizes import Sizes
from hq.publish.stream_publisher import StreamPublisher
from storelink.contract.errors import ContractViolation
from storelink.contract.messages import Message, SegmentRef, decode_head
from storelink.contract.streams import Stream, head_topic, parse_topic
from storelink.host.logs import get_logger
from storelink.transport.port import Connected, Disconnected, Link, LinkEvent, Published, Received

log = get_logger()

WINDOW = 64
"""Messages sent and not acknowledged, at most."""

SEGMENTS_WINDOW = 24
"""Of these, a stream's segments: a live batch never waits behind more."""

AUDIT_MS = 2_000
"""How long the broker may take to show the head it keeps, after a connect."""

SEAL_STEPS = 1
"""Segments sealed or rewritten in one step; live batches go first between them."""


class Publisher:
    """Publishes every stream of one master over one link, as far as what the broker keeps is that master's."""

    def __init__(
        self,
        root: str,
        master: Master,
        publication: Publication,
        link: Link,
        *,
        head_interval_ms: int = 500,
        heartbeat_ms: int = 5_000,
        segment_grace_ms: int = 600_000,
        sizes: Sizes | None = None,
        take_over: bool = False,
    ) -> None:
        self.connected = False
        before = {name: KeptHead((epoch,), seq, at_ms) for name, epoch, seq, at_ms in publication.foreign()}
        self.heads = BrokerHeads(root, master, link, 2 * heartbeat_ms, before, take_over=take_over)
        self._verdict = Verdict.WAIT
        self._root = root
        self._master = master
        self._publication = publication
        self._link = link
        self._head_interval_ms = head_interval_ms
        self._heartbeat_ms = heartbeat_ms
        self._grace_ms = segment_grace_ms
        self._sizes = sizes or Sizes()
        self._routes: dict[Stream, Route] = {}
        self._acks: dict[int, Callable[[], None]] = {}
        self._turn = 0

    def handle(self, event: LinkEvent, now_ms: int, wall_ms: int) -> None:
        """Take one link event."""
        match event:
            case Connected():
                self.connected = True
                self._acks.clear()
                self.heads.connect(now_ms)
                self._look(now_ms)
            case Disconnected(reason):
                log.warning("line.lost", reason=reason)
                self.connected, self._verdict = False, Verdict.WAIT
                self._acks.clear()
                for route in self._routes.values():
                    route.rewind()
            case Published(token):
                done = self._acks.pop(token, None)
                if done is not None:
                    done()
            case Received(message):
                self._receive(message, now_ms, wall_ms)
            case _:
                pass

    def step(self, now_ms: int, wall_ms: int) -> bool:
        """Send what is due: every stream's live batches, then the rest. True when more could be done at once."""
        rows = [(row, self._route(row, now_ms, wall_ms)) for row in self._master.streams()]
        if len(rows) < len(self._routes):  # a context that the master has otherwise now is left alone
            self._routes = {row.stream: route for row, route in rows}
        if not self.connected or not self._may_publish(now_ms, wall_ms):
            return False
        live = [(row, route) for row, route in rows if self._pump_live(row, route, now_ms)]
        turn = self._turn % max(1, len(live))
        for row, route in (*live[turn:], *live[:turn]):
            if self._pump_rest(row, route, now_ms, wall_ms):
                self._turn += 1  # the other streams' turn, after whatever is live by then
                return True
        return False

    @property
    def may_publish(self) -> bool:
        """Whether what the broker keeps, as far as it has been heard, is this master's."""
        return self._verdict is Verdict.PUBLISH and not self.heads.contested

    def _may_publish(self, now_ms: int, wall_ms: int) -> bool:
        waiting = any(r.audit_until_ms is not None and now_ms < r.audit_until_ms for r in self._routes.values())
        self._verdict = self.heads.judge(now_ms, wall_ms, [str(s) for s in self._routes], audited=not waiting)
        if self._verdict is Verdict.LOOK_AGAIN:
            self._look(now_ms)
        return self._verdict is Verdict.PUBLISH

    def _look(self, now_ms: int) -> None:
        """Ask the broker for all heads that it keeps; nothing is published until they are here."""
        for stream, route in self._routes.items():
            self._audit(stream, route, now_ms)
        self.heads.look(now_ms)

    def _route(self, row: StreamRow, now_ms: int, wall_ms: int) -> Route:
        route = self._routes.get(row.stream)
        if route is None or route.outlet.epoch != row.epoch:
            outlet = StreamPublisher(row.stream, self._root, self._master, self._publication, row.epoch, self._sizes)
            self._publication.retire_epochs(row.stream, row.epoch, wall_ms)
            route = self._routes[row.stream] = Route(outlet)
            if self.connected:
                self._audit(row.stream, route, now_ms)
        return route

    def _audit(self, stream: Stream, route: Route, now_ms: int) -> None:
        """Ask the broker for the head that it keeps; what it shows, or does not, decides what is sent."""
        route.audit_until_ms = now_ms + AUDIT_MS
        topic = head_topic(self._root, stream)
        self._link.unsubscribe([topic])
        self._link.subscribe([topic])

    def _receive(self, message: Message, now_ms: int, wall_ms: int) -> None:
        if self.heads.take(message, now_ms):
            return
        try:
            kind, stream, _ = parse_topic(self._root, message.topic, self._master.contexts)
        except ContractViolation:
            return
        route = self._routes.get(stream)
        if route is None:
            return
        if kind == "segment" and route.inspection is not None:
            self._seed_some(route, [route.inspection.take(message)])
        elif kind == "head" and route.audit_until_ms is not None:
            self._receive_head(message, stream, route, now_ms, wall_ms)
        elif kind == "head" and not message.retain and self.heads.is_replaced(stream, route.outlet.epoch):
            self._audit(stream, route, now_ms)

    def _receive_head(self, message: Message, stream: Stream, route: Route, now_ms: int, wall_ms: int) -> None:
        """Take the head that was asked for."""
        if not message.payload:
            return
        row = self._master.stream(stream)
        if row is None:
            return
        self._link.unsubscribe([message.topic])
        if route.outlet.published <= row.head_seq and is_sound(message, route.outlet.head_sha256):
            route.audit_until_ms = None
            kept = self._publication.acked(stream, route.outlet.epoch)
            route.inspection = BrokerCheck(self._root, stream, kept, self._link)
            return
        if self.heads.is_foreign(stream):
            route.audit_until_ms = now_ms
            return
        try:
            head = decode_head(self._root, message, self._master.contexts)
        except ContractViolation as violation:
            log.warning("head.rejected", stream=str(stream), reason=violation.reason)
        else:
            known = row.head_seq
            if self.heads.is_ours(head.epoch) and (head.epoch, head.seq) > (route.outlet.epoch, known):
                # HQ has forgotten changes that stores have seen: only a new incarnation is honest.
                epoch = self._master.new_epoch(stream, wall_ms)
                log.error("epoch.started", stream=str(stream), epoch=epoch, broker_seq=head.seq, head_seq=known)
        self._seed(stream, route)

    def _seed(self, stream: Stream, route: Route) -> None:
        log.warning("broker.seeded", stream=str(stream))
        route.audit_until_ms = None
        route.next_head_ms = 0
        route.unsent = None
        route.outlet.seed_again()

    def _seed_some(self, route: Route, lost: Iterable[SegmentRef | None]) -> None:
        """The broker kept the head, and lost or altered some of what it names: that goes out again, then a head."""
        for ref in lost:
            if ref is not None:
                log.warning("segment.seeded", stream=str(route.outlet.stream), first_seq=ref.first, last_seq=ref.last)
                segment = (ref.first, ref.last, ref.sha256)
                self._publication.set_acked(route.outlet.stream, route.outlet.epoch, segment, acked=False)
                route.outlet.head_sha256, route.outlet.head_sent = "", None
                route.unsent, route.sealed = None, False

    def _pump_live(self, row: StreamRow, route: Route, now_ms: int) -> bool:
        """Send live batches as far as the window goes; True when all are sent."""
        outlet = route.outlet
        if route.audit_until_ms is not None:
            return True
        outlet.skip_backlog(row)
        while len(self._acks) < WINDOW:
            batch = outlet.next_live(row)
            if batch is None:
                break
            message, seq = batch
            self._send(message, lambda seq=seq: outlet.acked_live(seq))  # type: ignore[misc]
            route.next_heartbeat_ms = now_ms + self._heartbeat_ms
        return outlet.live_sent >= row.head_seq

    def _pump_rest(self, row: StreamRow, route: Route, now_ms: int, wall_ms: int) -> bool:
        if route.audit_until_ms is not None:
            if now_ms < route.audit_until_ms:
                return False
            self._link.unsubscribe([head_topic(self._root, row.stream)])
            self._seed(row.stream, route)
        if now_ms >= route.next_heartbeat_ms:
            self._send(route.outlet.heartbeat(row, wall_ms), lambda: None)
            route.next_heartbeat_ms = now_ms + self._heartbeat_ms
        if now_ms >= route.next_clearing_ms:
            route.next_clearing_ms = now_ms + self._heartbeat_ms
            self._clear_retired(row.stream, wall_ms)
        if route.inspection is not None:
            self._seed_some(route, route.inspection.step(now_ms))
            route.inspection = None if route.inspection.done else route.inspection
        return self._pump_head(row, route, now_ms, wall_ms)

    def _pump_head(self, row: StreamRow, route: Route, now_ms: int, wall_ms: int) -> bool:
        outlet = route.outlet
        current = outlet.head_sha256 and outlet.published == row.head_seq and outlet.floor == row.floor
        if current or outlet.head_sent is not None or now_ms < route.next_head_ms:
            return False
        if not route.sealed:
            route.sealed = outlet.seal(wall_ms, SEAL_STEPS)
            route.unsent = None
        if self._pump_segments(row.stream, route):
            return not route.sealed
        if not route.sealed:
            return True
        route.sealed = False
        try:
            made = outlet.head(wall_ms)
        except ContractViolation as violation:
            log.error("head.oversized", stream=str(row.stream), detail=violation.detail)
            route.next_head_ms = now_ms + self._heartbeat_ms
            return False
        if made is None:
            return True
        message, seq = made
        digest = sha256(message.payload).hexdigest()
        outlet.head_sent = seq
        route.next_head_ms = now_ms + self._head_interval_ms
        # One that was on its way when the broker was found to lack segments is not the head that tells of them.
        self._send(message, lambda: outlet.acked_head(seq, digest) if outlet.head_sent == seq else None)
        return False

    def _pump_segments(self, stream: Stream, route: Route) -> bool:
        """Send the segments that the broker lacks; True while any is unacknowledged."""
        outlet = route.outlet
        if route.unsent is None:
            route.unsent = self._publication.unsent(stream, outlet.epoch)
        if route.segments_sent is None:
            route.segments_sent = set()
        for segment in list(route.unsent):
            if len(self._acks) >= WINDOW or len(route.segments_sent) >= SEGMENTS_WINDOW:
                break
            if segment in route.segments_sent:
                continue
            message = self._publication.message(stream, outlet.epoch, segment[:2])
            if message is not None:
                route.segments_sent.add(segment)
                self._send(message, lambda s=segment: self._acked_segment(route, s))  # type: ignore[misc]
        return bool(route.unsent)

    def _acked_segment(self, route: Route, segment: tuple[int, int, str]) -> None:
        self._publication.set_acked(route.outlet.stream, route.outlet.epoch, segment)
        if route.unsent is not None and segment in route.unsent:
            route.unsent.remove(segment)
        if route.segments_sent is not None:
            route.segments_sent.discard(segment)

    def _clear_retired(self, stream: Stream, wall_ms: int) -> None:
        """Clear the retained copies of replaced segments whose grace is over."""
        for epoch, first, last, topic in self._publication.retired(stream, wall_ms - self._grace_ms):
            if self._publication.in_force(stream, topic):
                self._publication.remove(stream, epoch, (first, last))
            elif len(self._acks) < WINDOW:
                forget = (stream, epoch, (first, last))
                self._send(Message(topic, b"", True), lambda f=forget: self._publication.remove(*f))  # type: ignore[misc]

    def _send(self, message: Message, acked: Callable[[], None]) -> None:
        self._acks[self._link.publish(message)] = acked
