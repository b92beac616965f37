"""What can go wrong on the way.

    LinkError
    ├── BadBrokerUrl   refuse: the address of the broker is wrong
    ├── NotConnected   retry: the line is down; a Disconnected event says so too
    └── Oversized      refuse: a message that brokers would cut the line for
"""

from __future__ import annotations


class LinkError(Exception):
    """The one base of the link's errors. `hint`: what to type or check next; may be empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BadBrokerUrl(LinkError):
    pass


class NotConnected(LinkError):
    pass


class Oversized(LinkError):
    pass
