"""What to send of an outbox next, given what HQ has acknowledged: a bounded window, without IO.

| HQ says, seen from `acked`              | the window |
|-----------------------------------------|------------|
| seq above `acked`                       | moves on   |
| `resend`, and not just sent again       | goes back to `acked` |
| a batch rejected, of several entries    | goes back, one entry at a time up to its end |
| a batch rejected, of one entry          | goes back; the entry is to be withheld |
| nothing in time                         | goes back, and retries one entry with backoff |
"""

from __future__ import annotations

from storelink.contract.limits import BATCH_ENTRIES_MAX
from storelink.contract.upstream import Ack

IN_FLIGHT_MAX = 4
"""Batches sent and not acknowledged."""

ACK_TIMEOUT_MS = 5_000
ACK_TIMEOUT_MS_MAX = 30_000
RESEND_MS = 1_000
"""HQ answers every batch behind a hole; their answers ask for one resend, not for one each."""


class Window:
    """How far one outbox has been sent; `acked` and `sent` are seqs."""

    def __init__(self, acked: int) -> None:
        self.acked = acked
        self.sent = acked
        self._ends: list[int] = []
        self._deadline_ms = 0
        self._went_back_ms = -RESEND_MS
        self._careful_to = 0
        self._timeouts = 0

    def entries_max(self) -> int | None:
        """How many entries the next batch may hold; None: the window is full."""
        if len(self._ends) >= (1 if self._timeouts else IN_FLIGHT_MAX):
            return None
        return 1 if self._timeouts or self.sent < self._careful_to else BATCH_ENTRIES_MAX

    def note_sent(self, last: int, mono_ms: int) -> None:
        """A batch that ends at `last` has gone out."""
        if not self._ends:
            patience_ms = min(ACK_TIMEOUT_MS << min(self._timeouts, 8), ACK_TIMEOUT_MS_MAX)
            self._deadline_ms = mono_ms + patience_ms
        self._ends.append(last)
        self.sent = last

    def be_careful(self, last: int) -> None:
        """Send one entry at a time up to `last`: one of them cannot be sent."""
        self._careful_to = max(self._careful_to, last)

    def on_ack(self, ack: Ack, mono_ms: int) -> int | None:
        """Take an acknowledgement of HQ; returns the seq of an entry to withhold, if one was found."""
        self._timeouts = 0
        if ack.seq > self.acked:
            self.acked = ack.seq
            self.sent = max(self.sent, ack.seq)
            self._ends = [end for end in self._ends if end > ack.seq]
            self._deadline_ms = mono_ms + ACK_TIMEOUT_MS
        found, rejected = None, ack.rejected
        if rejected is not None and rejected.last > self.acked:
            if rejected.first == rejected.last:
                found = rejected.first
            self.be_careful(rejected.last)
            self.go_back(mono_ms)
        elif ack.resend and ack.seq <= self.acked and mono_ms - self._went_back_ms >= RESEND_MS:
            self.go_back(mono_ms)
        return found

    def step(self, mono_ms: int) -> bool:
        """Go back when HQ has not answered in time. True if so."""
        late = bool(self._ends) and mono_ms >= self._deadline_ms
        if late:
            self.go_back(mono_ms)
            self._timeouts += 1
        return late

    def reconnected(self, mono_ms: int) -> None:
        """A new line: what was in flight is gone, and HQ may be there again."""
        self.go_back(mono_ms)
        self._timeouts = 0

    def go_back(self, mono_ms: int) -> None:
        """Send again from the first entry that is not acknowledged."""
        self.sent, self._ends, self._went_back_ms = self.acked, [], mono_ms
