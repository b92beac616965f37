"""The messages that HQ has sent and the broker has not acknowledged yet: a bounded number, and what follows on each."""

from __future__ import annotations

from collections.abc import Callable

from storelink.contract.messages import Message
from storelink.transport.port import Link

MESSAGES_MAX = 64
"""Live batches, segments and heads wait for room; heartbeats are sent beyond it."""


class SendWindow:
    """Shared by all streams of a publisher; owned by its thread. `sent` counts all messages that ever went through."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._acks: dict[int, Callable[[], None] | None] = {}
        self.sent = 0

    @property
    def is_full(self) -> bool:
        return len(self._acks) >= MESSAGES_MAX

    def send(self, message: Message, then: Callable[[], None] | None = None) -> None:
        """Send; `then` is called once the broker has acknowledged the message, unless the line breaks before."""
        self._acks[self._link.publish(message)] = then
        self.sent += 1

    def acked(self, token: int) -> None:
        """The broker has acknowledged the message that the link gave this token."""
        then = self._acks.pop(token, None)
        if then is not None:
            then()

    def clear(self) -> None:
        """The line broke, or is new: nothing that was sent will be acknowledged any more."""
        self._acks.clear()
