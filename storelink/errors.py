"""What can go wrong between a program and its line or its machine; `hint` says what the operator does next.

StorelinkError
├── BadBrokerUrl         refuse: the configured address of the broker
├── DeliveryFailed       refuse: what root asked for was made, and cannot be put where root wants it
├── NamedFileUnreadable  refuse: a file that root named cannot be opened
├── NotConnected         retry: the line is down; the owner publishes again once it is up
├── Oversized            refuse: this message, which brokers would cut the line for; it was not sent
└── RootRefused          refuse: root cannot become the owner of the directory that a command works in
"""

from __future__ import annotations


class StorelinkError(Exception):
    """The one base of the errors of transport and host.

    Attributes:
        hint: what to type or check next; one line; may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BadBrokerUrl(StorelinkError):
    pass


class DeliveryFailed(StorelinkError):
    pass


class NamedFileUnreadable(StorelinkError):
    pass


class NotConnected(StorelinkError):
    pass


class Oversized(StorelinkError):
    pass


class RootRefused(StorelinkError):
    pass
