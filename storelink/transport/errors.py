"""What can go wrong with a link; every error says in `hint` what the operator does next.

LinkError
├── BadBrokerUrl       refuse: the configured address of the broker
├── DeliveryFailed     refuse: what root asked for was made, and cannot be put where root wants it
├── NotConnected       retry: the line is down; the owner publishes again once it is up
├── Oversized          refuse: this message, which brokers would cut the line for; it was not sent
├── NamedFileUnreadable refuse: a file that root named cannot be opened
└── RootRefused        refuse: root cannot become the owner of the directory that a command works in
"""

from __future__ import annotations


class LinkError(Exception):
    """The one base of the link's errors.

    Attributes:
        hint: what to type or check next; one line; may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BadBrokerUrl(LinkError):
    pass


class DeliveryFailed(LinkError):
    pass


class NamedFileUnreadable(LinkError):
    pass


class NotConnected(LinkError):
    pass


class Oversized(LinkError):
    pass


class RootRefused(LinkError):
    pass
