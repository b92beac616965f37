"""The collector: takes in what stores send, each entry once, and acknowledges it when it is on disk.

Owned by the thread of `hq run`. It has no clock: `handle` and `flush` get the time. What came in one turn is one
commit; the acknowledgements go out after it. A crash before the commit loses nothing: stores send again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

from hq.collect.inbox import StoreInbox
from hq.core.outbox_intake import Gap, Repeat, Take, judge
from hq.errors import HqError
from storelink.contract.errors import ContractViolation
from storelink.contract.limits import ACK_REFUSED_MAX
from storelink.contract.messages import Message
from storelink.contract.status import Status, decode_status
from storelink.contract.streams import parse_store_topic, store_topic
from storelink.contract.upstream import Ack, OutboxBatch, Rejection, batch_named, decode_batch, encode_ack
from storelink.host.logs import get_logger
from storelink.transport.port import Connected, Disconnected, Link, LinkEvent, NotConnected, Received

log = get_logger()

TURN_BYTES_MAX = 16 * 1024 * 1024
"""Payloads and what is in them, taken in before they are committed, at the latest."""

RETRY_MS = 5_000
"""How long nothing is taken in after the disk refused; stores send again."""

GREETED_PER_TURN = 200

Outbox = tuple[str, str]
"""A store and the epoch of one of its outboxes."""


class Receiver:
    """Collects from every store over one link."""

    def __init__(self, root: str, inbox: StoreInbox, link: Link) -> None:
        self.counters: Counter[str] = Counter()
        self._root, self._inbox, self._link = root, inbox, link
        self._prefix = f"{root}/store/"
        self._topics = [store_topic(root, "+", kind) for kind in ("outbox", "status")]
        self._connected = False
        self._listening = True
        self._batches: list[OutboxBatch] = []
        self._statuses: dict[str, tuple[Status, int]] = {}
        self._rejected: dict[Outbox, Rejection] = {}
        self._bytes = 0
        self._retry_ms = 0
        self._ailing = False
        self._to_greet: list[Outbox] = []

    def handle(self, event: LinkEvent, now_ms: int, wall_ms: int) -> bool:
        """Take one link event. True if it is nobody else's."""
        match event:
            case Connected():
                self._connected = True
                self._subscribe()
            case Disconnected():
                self._connected = False
            case Received(message) if message.topic.startswith(self._prefix):
                if self._listening:
                    self._receive(message, wall_ms)
                if self._bytes > TURN_BYTES_MAX:
                    self.flush(now_ms, wall_ms)
                return True
            case _:
                pass
        return False

    def listen(self, *, may: bool) -> None:
        """Take in and acknowledge what stores send only while `may`: those of another master keep it for that one."""
        if may == self._listening:
            return
        self._listening = may
        if may and self._connected:
            self._subscribe()
        elif self._connected:
            self._link.unsubscribe(self._topics)

    def _subscribe(self) -> None:
        if self._listening:
            self._link.subscribe(self._topics)
            self._ask_all_again()

    def flush(self, now_ms: int, wall_ms: int) -> None:
        """Commit what has come, then acknowledge it; called when no more events wait."""
        if self._ailing and now_ms >= self._retry_ms:
            self._ask_all_again()
        self._greet(wall_ms)
        if not (self._batches or self._statuses or self._rejected):
            return
        batches, self._batches, self._bytes = self._batches, [], 0
        statuses, self._statuses = self._statuses, {}
        rejected, self._rejected = self._rejected, {}
        if now_ms < self._retry_ms:
            return
        try:
            acks = self._commit(batches, statuses, rejected, wall_ms)
        except HqError as error:
            log.error("inbox.failed", path=str(self._inbox.path), error=str(error))
            self._retry_ms, self._ailing = now_ms + RETRY_MS, True
            return
        self._acknowledge(acks, wall_ms)

    def _receive(self, message: Message, wall_ms: int) -> None:
        try:
            kind, _ = parse_store_topic(self._root, message.topic)
            if not message.payload:
                return  # a cleared status
            if kind == "status":
                status = decode_status(self._root, message)
                # A kept message tells of the past, by the store's own clock.
                seen_at_ms = min(status.at_ms, wall_ms) if message.retain else wall_ms
                self._statuses[status.store] = (status, seen_at_ms)
            elif kind == "outbox":
                batch = decode_batch(self._root, message)
                self._batches.append(batch)
                self._bytes += len(message.payload) + sum(len(e.data) for e in batch.entries)
        except ContractViolation as violation:
            self.counters[f"rejected_{violation.reason}"] += 1
            log.warning(
                "message.rejected", topic=message.topic[:120], reason=violation.reason, detail=violation.detail[:200]
            )
            self._reject(message, violation)

    def _reject(self, message: Message, violation: ContractViolation) -> None:
        """Tell a store of a batch that cannot be read, if it says which one it is."""
        named = batch_named(message)
        try:
            kind, store = parse_store_topic(self._root, message.topic)
        except ContractViolation:
            return
        if kind == "outbox" and named is not None:
            outbox, first, last = named
            self._rejected.setdefault((store, outbox), Rejection(first, last, violation.reason))

    def _commit(
        self,
        batches: list[OutboxBatch],
        statuses: Mapping[str, tuple[Status, int]],
        rejected: Mapping[Outbox, Rejection],
        wall_ms: int,
    ) -> list[Ack]:
        """Put everything into one transaction; returns what may be acknowledged once it has ended."""
        acked: dict[Outbox, int] = {}
        gaps: set[Outbox] = set()
        with self._inbox.transaction():
            for batch in batches:
                name = (batch.store, batch.outbox)
                acked[name] = min(batch.acked, acked.get(name, batch.acked))
                if self._take(batch, wall_ms):
                    gaps.discard(name)
                else:
                    gaps.add(name)
            for status, seen_at_ms in statuses.values():
                self._inbox.set_status(status, seen_at_ms)
        names = dict.fromkeys((*acked, *rejected))
        return [self._ack(name, acked.get(name), rejected.get(name), resend=name in gaps) for name in names]

    def _take(self, batch: OutboxBatch, wall_ms: int) -> bool:
        """Take one batch in as far as it is new. False if it came before its time."""
        match judge(self._inbox.through(batch.store, batch.outbox), batch):
            case Gap():
                self.counters["gaps"] += 1
                return False
            case Repeat():
                self.counters["repeats"] += 1
            case Take(after, lost):
                if lost:
                    log.error("entries.lost", store=batch.store, epoch=batch.outbox, through=after, entries=lost)
                for refusal in (*batch.withheld, *batch.refused):
                    if refusal.seq > after:
                        log.error("entry.refused", store=batch.store, seq=refusal.seq, reason=refusal.reason)
                self._inbox.put(batch, after, wall_ms)
                self.counters["entries"] += batch.last - after
        return True

    def _ack(self, name: Outbox, acked: int | None, rejected: Rejection | None, *, resend: bool) -> Ack:
        through = self._inbox.through(*name)
        # Without a batch that could be read, nothing tells what the store has heard: it is told no more than that.
        if acked is None:
            return Ack(*name, 0, (), False, rejected)
        refused = self._inbox.refused(*name, acked, ACK_REFUSED_MAX + 1)
        if len(refused) > ACK_REFUSED_MAX:
            through = refused.pop().seq - 1  # the rest comes with the next batch
        return Ack(*name, max(through, acked), tuple(refused), resend, rejected)

    def _ask_all_again(self) -> None:
        """After a connect, and after the disk refused: stores may have given HQ up for a while."""
        self._ailing = False
        with suppress(HqError):  # what ails the inbox shows, and is told, at the next commit
            self._to_greet = self._inbox.newest_outboxes()

    def _greet(self, wall_ms: int) -> None:
        if self._connected and self._listening and self._to_greet:
            some, self._to_greet = self._to_greet[:GREETED_PER_TURN], self._to_greet[GREETED_PER_TURN:]
            self._acknowledge([Ack(*name, 0, (), resend=True) for name in some], wall_ms)

    def _acknowledge(self, acks: list[Ack], wall_ms: int) -> None:
        """One acknowledgement an outbox; one that gets lost is asked for by a repeat."""
        try:
            for ack in acks:
                if self._connected and self._listening:
                    self._link.publish(encode_ack(self._root, ack, wall_ms))
        except NotConnected:
            self._connected = False
