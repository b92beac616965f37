"""The sender: sends the outbox to HQ while the line is up; only HQ's own acknowledgement removes an entry.

Owned by the writer thread. It has no thread and no clock: `mono_ms` is monotonic, `wall_ms` since 1970. Whatever is
wrong with the outbox's file never stops the replica: it is logged, and tried again later. A crash costs at most that
some batches are sent again, which HQ recognizes.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from storelink.contract.errors import ContractViolation
from storelink.contract.messages import Message
from storelink.contract.status import OutboxStatus
from storelink.contract.streams import store_topic
from storelink.contract.upstream import Ack, OutboxBatch, decode_ack, encode_batch
from storelink.host.logs import get_logger
from storelink.transport.port import Connected, Disconnected, Link, LinkEvent, Oversized, Received
from storenode.core.send_window import Window
from storenode.errors import OutboxBusy, StorenodeError
from storenode.outbox.file import OutboxState
from storenode.outbox.overrides import restated
from storenode.outbox.store import Outbox

log = get_logger()

LOOK_EVERY_MS = 1_000
"""How late an entry is noticed that woke nobody."""

RETRY_MS = 5_000
ACKS_WAITING_MAX = 1_000
BUSY_TIMEOUT_S = 0.5
CHECKPOINT_ABOVE_BYTES = 1_048_576


class Sender:
    """Sends one outbox over one link."""

    def __init__(
        self, root: str, store: str, path: Path, max_bytes: int, link: Link, counters: Counter[str] | None = None
    ) -> None:
        self._root, self._store, self._path, self._max_bytes, self._link = root, store, path, max_bytes, link
        self._topic = store_topic(root, store, "ack")
        self._outbox: Outbox | None = None
        self._state: OutboxState | None = None
        self._window = Window(0)
        self._acks: list[Ack] = []
        self._connected = False
        self._changed: int | None = None
        self._look_ms = self._retry_ms = 0
        self.counters: Counter[str] = Counter() if counters is None else counters

    @property
    def status(self) -> OutboxStatus | None:
        """The outbox's part of the status for HQ; None while it cannot be read."""
        found = self._state
        return OutboxStatus(found.epoch, found.pending, found.acked_seq, found.refused) if found else None

    def handle(self, event: LinkEvent, mono_ms: int) -> bool:
        """Take one link event. True if it is nobody else's."""
        match event:
            case Connected():
                self._connected = True
                self._link.subscribe([self._topic])
                self._window.reconnected(mono_ms)
            case Disconnected():
                self._connected = False
                self._window.go_back(mono_ms)
            case Received(message) if message.topic == self._topic:
                self._receive(message)
                return True
            case _:
                pass
        return False

    def step(self, mono_ms: int, wall_ms: int, *, woken: bool = False) -> bool:
        """Obey acknowledgements and send what is due; `woken`: somebody appended. True if there is more at once."""
        if mono_ms < self._retry_ms:
            return False
        try:
            outbox = self._opened()
            self._obey(outbox, mono_ms, wall_ms)
            self._look(outbox, mono_ms, woken=woken)
            if self._window.step(mono_ms):
                self.counters["outbox_timeouts"] += 1
            return self._connected and self._pump(outbox, mono_ms, wall_ms)
        except OutboxBusy:
            return False  # the next turn tries again
        except StorenodeError as error:
            log.error("outbox.failed", path=str(self._path), error=str(error))
            self._retry_ms = mono_ms + RETRY_MS
            self.close()
            return False

    def close(self) -> None:
        """Let go of the file."""
        if self._outbox is not None:
            self._outbox.close()
        self._outbox = self._state = None

    def _opened(self) -> Outbox:
        if self._outbox is None:
            self._outbox = Outbox(self._path, self._max_bytes, busy_timeout_s=BUSY_TIMEOUT_S).open()
            self._state = self._outbox.state()
            self._window = Window(self._state.acked_seq)
            self._changed = None
        return self._outbox

    def _look(self, outbox: Outbox, mono_ms: int, *, woken: bool) -> None:
        """See whether there is more; one look a second at most, unless somebody appended."""
        if not woken and mono_ms < self._look_ms and self._state is not None:
            return
        self._look_ms = mono_ms + LOOK_EVERY_MS
        changed = outbox.changed()
        if woken or changed != self._changed or self._state is None:
            self._changed, self._state = changed, outbox.state()
            outbox.checkpoint(CHECKPOINT_ABOVE_BYTES)

    def _receive(self, message: Message) -> None:
        try:
            ack = decode_ack(self._root, message)
            if len(self._acks) < ACKS_WAITING_MAX:
                self._acks.append(ack)
        except ContractViolation as violation:
            self.counters[f"rejected_{violation.reason}"] += 1
            log.warning("ack.rejected", reason=violation.reason, detail=violation.detail[:200])

    def _obey(self, outbox: Outbox, mono_ms: int, wall_ms: int) -> None:
        """Take in the acknowledgements, in order; one that fails is kept for the next turn."""
        while self._acks:
            ack, found = self._acks[0], self._state or outbox.state()
            if ack.outbox != found.epoch:
                self._acks.pop(0)
                continue
            if ack.seq > found.last_seq:
                found = outbox.state()
            if ack.seq > found.last_seq:
                # HQ knows entries that this file never had: it is an older copy, and its seqs name other entries there.
                epoch = outbox.renew(wall_ms, restated)
                log.error("outbox.renewed", epoch=epoch, acked_seq=ack.seq, last_seq=found.last_seq)
                self._acks.clear()
                self._window = Window(found.acked_seq)
            else:
                self._take(outbox, ack, found, mono_ms)
                self._acks.pop(0)
            self._state = outbox.state()

    def _take(self, outbox: Outbox, ack: Ack, found: OutboxState, mono_ms: int) -> None:
        if ack.seq > found.acked_seq:
            outbox.remove_acked(ack.seq, ack.refused)
            for refusal in ack.refused:
                if refusal.seq > found.acked_seq:
                    log.error("entry.refused", seq=refusal.seq, reason=refusal.reason)
        unreadable_seq = self._window.on_ack(ack, mono_ms)
        if unreadable_seq is not None and ack.rejected is not None:
            self._withhold(outbox, unreadable_seq, ack.rejected.reason)

    def _withhold(self, outbox: Outbox, seq: int, reason: str) -> None:
        outbox.withhold(seq, reason)
        log.error("entry.withheld", seq=seq, reason=reason)

    def _pump(self, outbox: Outbox, mono_ms: int, wall_ms: int) -> bool:
        """Send batches until the window is full or the outbox is sent."""
        while self._state is not None and self._window.sent < self._state.last_seq:
            entries_max = self._window.entries_max()
            if entries_max is None:
                return False
            entries, withheld = outbox.after(self._window.sent, entries_max)
            if not entries and not withheld:
                return False
            seqs = [e.seq for e in entries] + [w.seq for w in withheld]
            batch = OutboxBatch(
                self._store, self._state.epoch, min(seqs), max(seqs), self._window.acked, entries, withheld
            )
            try:
                self._link.publish(encode_batch(self._root, batch, wall_ms))
            except Oversized:
                if len(seqs) == 1:
                    self._withhold(outbox, seqs[0], "oversized")
                self._window.be_careful(batch.last)
                return True
            self._window.note_sent(batch.last, mono_ms)
            self.counters["outbox_batches"] += 1
        return False
