"""Between a link and one of its connections: the commands and the protocol that both keep."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from storelink.contract.messages import Message
from storelink.transport.port import Sink
from storelink.transport.url import BrokerUrl


@dataclass(frozen=True, slots=True)
class Publish:
    token: int
    message: Message


@dataclass(frozen=True, slots=True)
class Subscribe:
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    topics: tuple[str, ...]


LineCommand = Publish | Subscribe | Unsubscribe


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """What all connections of one link are made with; `rejected` counts for all of them."""

    url: BrokerUrl
    client_id: str
    will: Message | None
    keepalive_s: int
    emit: Sink
    wake_fd: int
    closing: threading.Event
    rejected: Counter[str] = field(default_factory=Counter)


class LineLost(Exception):
    """The connection is over; the text says why."""


class Connection(Protocol):
    """
    One connection. `run` and `dispose` are for the link's thread, `submit` and the attributes for the owner's too.

    Attributes:
        up: between the broker's welcome and `dispose`.
        useful: the broker has done something for us, not only let us in.
        packet_bytes_max: the largest packet that the broker takes, if it said so.
    """

    up: bool
    useful: bool
    packet_bytes_max: int | None

    def submit(self, command: LineCommand) -> None:
        """Queue a command for the line. Raises NotConnected if too many wait; the connection ends then."""

    def run(self) -> None:
        """Connect and serve until the link closes (returns) or the line breaks (raises, whatever it was)."""

    def dispose(self) -> None:
        """Close the socket without a DISCONNECT, in whatever state it is."""
