"""The publisher: keeps the broker equal to the master, whatever the line and the broker do.

A turn looks at the streams that changed, that wait for the broker, or whose heartbeat is due, and does a bounded share
of what they need; the others cost nothing. Owned by one thread. It has no clock and no thread: `handle` and `step` get
the time. What is sent of one stream, and in which order, is `hq.publish.stream_publisher`'s; whether HQ may publish at
all is `hq.publish.broker_heads`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import islice

from hq.master.store import Master, StreamRow
from hq.publish.broker_heads import BrokerHeads, KeptHead, Permission
from hq.publish.publication import Publication
from hq.publish.send_window import SendWindow
from hq.publish.sizes import Sizes
from hq.publish.stream_messages import StreamMessages
from hq.publish.stream_publisher import Pace, StreamPublisher, audit
from storelink.contract.errors import ContractViolation
from storelink.contract.messages import Message, decode_head
from storelink.contract.streams import Stream, parse_topic
from storelink.host.logs import get_logger
from storelink.transport.port import Connected, Disconnected, Link, LinkEvent, Published, Received

log = get_logger()

WORK_PER_TURN = 50
"""Streams of which a turn sends something, live batches aside: it is over before anything else has waited for long."""

LOADED_PER_TURN = 200
"""New streams of one turn."""


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
        self._names: set[str] = set()
        self._rows: dict[Stream, StreamRow] = {}  # as of the change that was noticed last
        self._change = 0
        self._unloaded: dict[Stream, None] = {}  # new, or in a new epoch; in order
        self._active: dict[Stream, None] = {}  # has something to do, or waits for the broker; in order
        self._due: list[tuple[int, str, Stream]] = []  # a heap: when the others have something to do
        self._due_ms: dict[Stream, int] = {}

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
        """Send what is due, live batches first, up to a turn's share. True when more could be done at once."""
        self._notice_changes()
        self._load_some(mono_ms, wall_ms)
        if not self.is_connected or not self._ask_permission(mono_ms, wall_ms):
            return bool(self._unloaded)
        self._wake_due(mono_ms)
        loaded = [name for name in self._active if name not in self._unloaded]
        ready = [name for name in loaded if self._streams[name].send_live(self._rows[name], mono_ms)]
        return self._send_rest(ready, mono_ms, wall_ms) or bool(self._unloaded)

    def _send_rest(self, ready: Iterable[Stream], mono_ms: int, wall_ms: int) -> bool:
        """Send what else is due of the active streams; each goes behind the others then, or is idle."""
        worked = 0
        for name in ready:
            if worked >= WORK_PER_TURN:
                return True
            stream, row, sent = self._streams[name], self._rows[name], self._window.sent
            audit_ends = stream.in_audit and not stream.awaits_head(mono_ms)
            more = stream.send_rest(row, mono_ms, wall_ms)
            worked += audit_ends or self._window.sent > sent
            del self._active[name]
            if more or not stream.is_idle(row):
                self._active[name] = None
            elif self._due_ms.get(name) != stream.next_due_ms:
                self._due_ms[name] = stream.next_due_ms
                heappush(self._due, (stream.next_due_ms, str(name), name))
            if more:
                return True  # live batches go first, then another stream
        return False

    def _wake_due(self, mono_ms: int) -> None:
        """Streams whose heartbeat is due become active; what was noted of a stream before it was active is void."""
        while self._due and self._due[0][0] <= mono_ms:
            due_ms, _, name = heappop(self._due)
            if self._due_ms.get(name) == due_ms:
                del self._due_ms[name]
                self._active.setdefault(name)

    def _notice_changes(self) -> None:
        """Read the streams that changed since the last turn, and no other."""
        self._change, changed, left_out = self._master.streams_since(self._change)
        for row in changed:
            name = row.stream
            self._names.add(str(name))
            self._rows[name] = row
            if name in self._streams and self._streams[name].epoch == row.epoch:
                self._active[name] = None
            else:
                self._unloaded[name] = None
                self._active.pop(name, None)
        for text in self._names.intersection(left_out):  # a context that the master has otherwise now is left alone
            self._names.remove(text)
            for name in [name for name in self._rows if str(name) == text]:
                for part in (self._rows, self._streams, self._active, self._unloaded, self._due_ms):
                    part.pop(name, None)

    def _load_some(self, mono_ms: int, wall_ms: int) -> None:
        """Begin with streams that are new, or in a new epoch."""
        some = list(islice(self._unloaded, LOADED_PER_TURN))
        for name in some:
            epoch = self._rows[name].epoch
            messages = StreamMessages.load(name, self._root, self._master, self._publication, epoch, self._sizes)
            self._publication.retire_epochs(name, epoch, wall_ms)
            found = StreamPublisher(self._root, messages, self._publication, self._link, self._window, self._pace)
            self._streams[name] = found
            self._active[name] = None
            del self._unloaded[name]
        if some and self.is_connected:
            audit(self._root, self._link, [self._streams[name] for name in some], mono_ms)

    def _ask_permission(self, mono_ms: int, wall_ms: int) -> bool:
        audited = not self._unloaded and not any(self._streams[name].awaits_head(mono_ms) for name in self._active)
        self._permission = self.heads.judge(mono_ms, wall_ms, self._names, audited=audited)
        if self._permission is Permission.LOOK_AGAIN:
            self._look(mono_ms)
        return self._permission is Permission.PUBLISH

    def _look(self, mono_ms: int) -> None:
        """Ask the broker for all heads that it keeps; nothing is published until they are here."""
        self._active = dict.fromkeys(self._streams)
        audit(self._root, self._link, self._streams.values(), mono_ms)
        self.heads.look(mono_ms)

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
        self._active.setdefault(name)
        if kind == "segment":
            stream.receive_segment(message)
        elif kind == "head" and stream.in_audit:
            self._receive_head(message, stream, mono_ms, wall_ms)
        elif kind == "head" and not message.retain and self.heads.is_replaced(name, stream.epoch):
            audit(self._root, self._link, [stream], mono_ms)

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
