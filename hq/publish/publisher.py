"""The publisher: keeps the broker equal to the master, whatever the line and the broker do.

Owned by one thread. It has no clock and no thread: `handle` and `step` get the time. What is sent of one stream, and
in which order, is `hq.publish.stream_publisher`'s; whether HQ may publish at all is `hq.publish.broker_heads`'s.
"""

from __future__ import annotations

from hq.master.store import Master, StreamRow
from hq.publish.broker_heads import BrokerHeads, KeptHead, Permission
from hq.publish.publication import Publication
from hq.publish.send_window import SendWindow
from hq.publish.sizes import Sizes
from hq.publish.stream_messages import StreamMessages
from hq.publish.stream_publisher import Pace, StreamPublisher
from storelink.contract.errors import ContractViolation
from storelink.contract.messages import Message, decode_head
from storelink.contract.streams import Stream, parse_topic
from storelink.host.logs import get_logger
from storelink.transport.port import Connected, Disconnected, Link, LinkEvent, Published, Received

log = get_logger()


class Publisher:
    """Publishes every stream of one master over one link, as far as what the broker keeps is that master's."""

    def __init__(
        self,
        root: str,
        master: Master,
        publication: Publication,
        link: Link,
        heads: BrokerHeads,
        pace: Pace,
        sizes: Sizes,
    ) -> None:
        self.is_connected = False
        self.heads = heads
        self._permission = Permission.WAIT
        self._root = root
        self._master = master
        self._publication = publication
        self._link = link
        self._window = SendWindow(link)
        self._pace = pace
        self._sizes = sizes
        self._streams: dict[Stream, StreamPublisher] = {}
        self._first = 0

    @classmethod
    def load(
        cls,
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
    ) -> Publisher:
        """
        Build it; it starts silent if this HQ was silent when it was last at work, as the publication records.

        Args:
            head_interval_ms: the least time between two heads of a stream.
            heartbeat_ms: how often each stream is heard of when nothing changes.
            segment_grace_ms: how long the broker keeps a segment that was replaced.
            take_over: publish over whatever heads the broker keeps at the first look.
        """
        before = {name: KeptHead((epoch,), seq, at_ms) for name, epoch, seq, at_ms in publication.foreign()}
        heads = BrokerHeads(root, master, link, 2 * heartbeat_ms, before, take_over=take_over)
        pace = Pace(head_interval_ms, heartbeat_ms, segment_grace_ms)
        return cls(root, master, publication, link, heads, pace, sizes or Sizes())

    @property
    def may_publish(self) -> bool:
        """Whether what the broker keeps, as far as it has been heard, is this master's."""
        return self._permission is Permission.PUBLISH and not self.heads.contested

    def handle(self, event: LinkEvent, mono_ms: int, wall_ms: int) -> None:
        """Take one link event."""
        match event:
            case Connected():
                self.is_connected = True
                self._window.clear()
                self.heads.connect(mono_ms)
                self._look(mono_ms)
            case Disconnected(reason):
                log.warning("line.lost", reason=reason)
                self.is_connected, self._permission = False, Permission.WAIT
                self._window.clear()
                for stream in self._streams.values():
                    stream.line_lost()
            case Published(token):
                self._window.acked(token)
            case Received(message):
                self._receive(message, mono_ms, wall_ms)
            case _:
                pass

    def step(self, mono_ms: int, wall_ms: int) -> bool:
        """Send what is due: every stream's live batches, then the rest. True when more could be done at once."""
        rows = [(row, self._stream(row, mono_ms, wall_ms)) for row in self._master.streams()]
        if len(rows) < len(self._streams):  # a context that the master has otherwise now is left alone
            self._streams = {row.stream: stream for row, stream in rows}
        if not self.is_connected or not self._ask_permission(mono_ms, wall_ms):
            return False
        sent = [(row, stream) for row, stream in rows if stream.send_live(row, mono_ms)]
        first = self._first % max(1, len(sent))
        for row, stream in (*sent[first:], *sent[:first]):
            if stream.send_rest(row, mono_ms, wall_ms):
                self._first += 1  # next time another stream is first, after whatever is live by then
                return True
        return False

    def _ask_permission(self, mono_ms: int, wall_ms: int) -> bool:
        audited = not any(stream.awaits_head(mono_ms) for stream in self._streams.values())
        self._permission = self.heads.judge(mono_ms, wall_ms, {str(s) for s in self._streams}, audited=audited)
        if self._permission is Permission.LOOK_AGAIN:
            self._look(mono_ms)
        return self._permission is Permission.PUBLISH

    def _look(self, mono_ms: int) -> None:
        """Ask the broker for all heads that it keeps; nothing is published until they are here."""
        for stream in self._streams.values():
            stream.audit(mono_ms)
        self.heads.look(mono_ms)

    def _stream(self, row: StreamRow, mono_ms: int, wall_ms: int) -> StreamPublisher:
        found = self._streams.get(row.stream)
        if found is None or found.epoch != row.epoch:
            messages = StreamMessages.load(
                row.stream, self._root, self._master, self._publication, row.epoch, self._sizes
            )
            self._publication.retire_epochs(row.stream, row.epoch, wall_ms)
            found = StreamPublisher(self._root, messages, self._publication, self._link, self._window, self._pace)
            self._streams[row.stream] = found
            if self.is_connected:
                found.audit(mono_ms)
        return found

    def _receive(self, message: Message, mono_ms: int, wall_ms: int) -> None:
        if self.heads.take(message, mono_ms):
            return
        try:
            kind, name, _ = parse_topic(self._root, message.topic, self._master.contexts)
        except ContractViolation:
            return
        stream = self._streams.get(name)
        if stream is None:
            return
        if kind == "segment":
            stream.receive_segment(message)
        elif kind == "head" and stream.in_audit:
            self._receive_head(message, stream, mono_ms, wall_ms)
        elif kind == "head" and not message.retain and self.heads.is_replaced(name, stream.epoch):
            stream.audit(mono_ms)

    def _receive_head(self, message: Message, stream: StreamPublisher, mono_ms: int, wall_ms: int) -> None:
        """Take the head that was asked for."""
        row = self._master.stream(stream.stream)
        if row is None or not message.payload:
            return
        self._link.unsubscribe([message.topic])
        if stream.found_own_head(message, row):
            return
        if self.heads.is_foreign(row.stream):
            stream.found_foreign_head(mono_ms)
            return
        try:
            head = decode_head(self._root, message, self._master.contexts)
        except ContractViolation as violation:
            log.warning("head.rejected", stream=str(row.stream), reason=violation.reason)
        else:
            if self.heads.is_ours(row.stream, head.epoch) and (head.epoch, head.seq) > (stream.epoch, row.head_seq):
                # HQ has forgotten changes that stores have seen: only a new incarnation is honest.
                epoch = self._master.new_epoch(row.stream, wall_ms)
                log.error(
                    "epoch.started",
                    stream=str(row.stream),
                    epoch=epoch,
                    broker_seq=head.seq,
                    head_seq=row.head_seq,
                )
        stream.seed()
