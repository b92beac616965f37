"""The port: what an owner may ask of a link, and the events that it gets back.

The rules that every implementation keeps (tests/ports runs one suite on all of them):

- Each event goes to the one `sink` given to the constructor, in order; the sink must not block or raise.
- A connection is `Connected`, then traffic, then `Disconnected`. A `Disconnected` may also come with no
  `Connected` before it, to say why the line does not come up; once for each new reason.
- A link reconnects by itself and for ever. It starts clean: after `Connected` the broker knows no
  subscription of ours and the owner sends them again.
- `Published(token)` means that the broker has taken the message over. A token that was not acknowledged
  before `Disconnected` never will be; the owner publishes again. Tokens are never reused.
- `subscribe` and `unsubscribe` while the line is down do nothing: the next `Connected` asks for them anyway.
- A retained message comes once a subscription; to get it again, unsubscribe first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from storelink.contract.limits import FETCH_FILTERS_PER_SUBSCRIBE, MESSAGE_BYTES_MAX
from storelink.contract.messages import Message
from storelink.errors import NotConnected, Oversized

__all__ = [
    "Connected",
    "Disconnected",
    "Link",
    "LinkEvent",
    "Message",
    "NotConnected",
    "Oversized",
    "Published",
    "Received",
    "Sink",
    "Subscribed",
]

TOPICS_PER_PACKET = FETCH_FILTERS_PER_SUBSCRIBE
"""Filters of one SUBSCRIBE or UNSUBSCRIBE; AWS IoT allows no more."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The line is up. `generation` counts connections of this link, from 1."""

    generation: int


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The line is down, or still is for a new reason. `reason` is for a person."""

    reason: str


@dataclass(frozen=True, slots=True)
class Received:
    """A message came; untrusted. Its `retain` is True if the broker had kept it, False if it is live."""

    message: Message


@dataclass(frozen=True, slots=True)
class Published:
    """The broker has acknowledged the message of this token."""

    token: int


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The broker has granted these topics; one that it refuses is left out."""

    topics: tuple[str, ...]


LinkEvent = Connected | Disconnected | Received | Published | Subscribed
Sink = Callable[[LinkEvent], None]


class Link(Protocol):
    """One client's line to the broker."""

    @property
    def connected(self) -> bool:
        """Whether the line is up now; the events say so in order with everything else."""
        ...

    def start(self) -> None:
        """Begin to connect; returns at once, also when no broker is there."""
        ...

    def publish(self, message: Message) -> int:
        """
        Send a message at QoS 1 and return its token.

        Raises:
            NotConnected: the line is down.
            Oversized: the payload is over MESSAGE_BYTES_MAX, or over what the broker takes.
        """
        ...

    def subscribe(self, topics: Sequence[str]) -> None:
        """Ask for topics at QoS 1, at most TOPICS_PER_PACKET in a packet."""
        ...

    def unsubscribe(self, topics: Sequence[str]) -> None:
        """Ask for topics no more. Messages already on their way still come."""
        ...

    def close(self) -> None:
        """Disconnect cleanly (no will is sent) and stay so; no event comes after it returns."""
        ...


def check_size(message: Message, max_bytes: int = MESSAGE_BYTES_MAX) -> None:
    """Raise Oversized for a payload over `max_bytes`."""
    if len(message.payload) > max_bytes:
        raise Oversized(
            f"message of {len(message.payload)} bytes for {message.topic} is over the limit of {max_bytes}",
            hint="if it is the broker that allows so little, raise its max_packet_size",
        )
