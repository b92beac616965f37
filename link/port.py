"""The port: what HQ and stores need of a line to a broker, and the events it hands back.

A link reconnects for ever and never re-subscribes: its owner sends its subscriptions again on each
`Connected`, and publishes again what was not `Published` before a `Disconnected`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from contract.cloudevents import Message
from link.errors import NotConnected

__all__ = [
    "Connected", "Disconnected", "Event", "Link", "Message", "NotConnected", "Published", "Received", "Sink",
    "Subscribed",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Connected:
    """A new connection, clean: no subscription, nothing in flight. `generation` counts connections."""

    generation: int


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone; tokens that were not acknowledged never will be."""

    reason: str


@dataclass(frozen=True, slots=True)
class Received:
    message: Message


@dataclass(frozen=True, slots=True)
class Published:
    """The broker acknowledged the message that `publish` gave this token for (a PUBACK; not durable)."""

    token: int


@dataclass(frozen=True, slots=True)
class Subscribed:
    topics: tuple[str, ...]


Event = Connected | Disconnected | Received | Published | Subscribed
Sink = Callable[[Event], None]
"""Takes events in order; called from the network thread; must not block."""


class Link(Protocol):
    """A line to a broker. All methods are called by one thread, none blocks on the network."""

    @property
    def connected(self) -> bool: ...

    def start(self) -> None:
        """Begin to connect, and to reconnect whenever the line breaks."""

    def publish(self, message: Message) -> int:
        """Send with QoS 1; returns the token that `Published` will carry. Raises NotConnected, Oversized."""

    def subscribe(self, topics: Sequence[str]) -> None:
        """Subscribe with QoS 1, at most 8 filters a packet. Raises NotConnected."""

    def unsubscribe(self, topics: Sequence[str]) -> None:
        """End subscriptions. Raises NotConnected."""

    def close(self) -> None:
        """Disconnect cleanly and stay so."""
