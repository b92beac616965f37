"""The hand-over from the network thread to the loop that owns the work: a bounded queue with a file descriptor."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress

from storelink.transport.port import Event, Received

MESSAGES_MAX = 20_000


class EventQueue:
    """Events in order. Any thread may `put` or `wake`; one thread `drain`s."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.dropped = 0

    def fileno(self) -> int:
        """Readable while there is something to do; for `select`."""
        return self._wake

    def put(self, event: Event) -> None:
        """Hand an event over; a message beyond the bound is dropped, which its stream notices as a gap."""
        if isinstance(event, Received) and len(self._events) >= MESSAGES_MAX:
            self.dropped += 1
            return
        self._events.append(event)
        self.wake()

    def wake(self) -> None:
        os.eventfd_write(self._wake, 1)

    def clear_wake(self) -> None:
        """Forget the wake-up calls so far; call before looking at the events."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    def pop(self) -> Event | None:
        return self._events.popleft() if self._events else None

    def __len__(self) -> int:
        return len(self._events)
