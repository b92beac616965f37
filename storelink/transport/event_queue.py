"""A bounded queue of link events, with a file descriptor: from the network thread to the loop that does the work."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress

from storelink.transport.port import LinkEvent, Received

MESSAGES_MAX = 20_000


class EventQueue:
    """
    Link events in order. Any thread may `put` and `wake`; one thread may `pop`.

    `dropped` counts the messages for which there was no room.
    """

    def __init__(self) -> None:
        self._events: deque[LinkEvent] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.dropped = 0

    def fileno(self) -> int:
        """Readable while there is something to do; for `select`."""
        return self._wake

    def put(self, event: LinkEvent) -> None:
        """Add an event. Beyond MESSAGES_MAX a message is dropped; its stream sees a gap, and fetches what it lacks."""
        if isinstance(event, Received) and len(self._events) >= MESSAGES_MAX:
            self.dropped += 1
            return
        self._events.append(event)
        self.wake()

    def wake(self) -> None:
        """Make the descriptor readable, for work that is no event."""
        os.eventfd_write(self._wake, 1)

    def clear_wake(self) -> None:
        """Make the descriptor unreadable until the next `put` or `wake`; call it before `pop`."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    def pop(self) -> LinkEvent | None:
        """Take the oldest event; None if there is none."""
        return self._events.popleft() if self._events else None

    def __len__(self) -> int:
        return len(self._events)
