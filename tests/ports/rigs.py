"""The rigs that the port suite runs on: one broker each, links to it, and ways to trouble them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from storelink.contract.messages import Message
from storelink.transport.memory import MemoryBroker, MemoryLink
from storelink.transport.mqtt import MqttLink
from storelink.transport.port import Connected, Disconnected, Link, LinkEvent, Published, Received
from storelink.transport.url import BrokerUrl
from testbed.broker import Broker
from testbed.cut_line import Line

SETTLE_S = 0.4
"""How long a real broker may still say something that it should not."""


@dataclass
class Client:
    """A link and what its sink got."""

    link: Link
    events: list[LinkEvent] = field(default_factory=list)

    @property
    def messages(self) -> list[Message]:
        return [e.message for e in self.events if isinstance(e, Received)]

    @property
    def acknowledged(self) -> list[int]:
        return [e.token for e in self.events if isinstance(e, Published)]

    @property
    def generations(self) -> list[int]:
        return [e.generation for e in self.events if isinstance(e, Connected)]

    @property
    def losses(self) -> list[str]:
        return [e.reason for e in self.events if isinstance(e, Disconnected)]


class Rig(Protocol):
    """One broker and the lines to it. Links are made, but not started."""

    def client(self, client_id: str, will: Message | None = None) -> Client: ...

    def until(self, condition: Callable[[], bool]) -> None:
        """Let things happen until the condition holds; fails if it does not in good time."""

    def settle(self) -> None:
        """Let everything happen that is still going to."""

    def freeze(self, client_id: str) -> None:
        """From now on nothing gets through between a client and the broker; the client does not notice."""

    def cut(self, client_id: str) -> None: ...

    def heal(self, client_id: str) -> None: ...

    def restart(self) -> None:
        """Stop the broker and start it again."""


class MemoryRig:
    def __init__(self, seed: int = 1) -> None:
        self.broker = MemoryBroker(random.Random(seed))
        self.broker.delay_ms_max = 20
        self._now_ms = 0

    def client(self, client_id: str, will: Message | None = None) -> Client:
        events: list[LinkEvent] = []
        return Client(MemoryLink(self.broker, client_id, events.append, will), events)

    def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(10_000):
            if condition():
                return
            self._now_ms += 5
            self.broker.advance(self._now_ms)
        raise AssertionError("did not happen in 50 simulated seconds")

    def settle(self) -> None:
        self._now_ms += 10_000
        self.broker.advance(self._now_ms)

    def freeze(self, client_id: str) -> None:
        self.broker.notice_ms_max = 500
        self.broker.cut(client_id)

    def cut(self, client_id: str) -> None:
        self.broker.cut(client_id)

    def heal(self, client_id: str) -> None:
        self.broker.heal(client_id)

    def restart(self) -> None:
        self.broker.restart()


class RealRig:
    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._lines: dict[str, Line] = {}
        self._links: list[MqttLink] = []

    def client(self, client_id: str, will: Message | None = None) -> Client:
        if client_id not in self._lines:
            self._lines[client_id] = Line(self.broker.port)
        events: list[LinkEvent] = []
        link = MqttLink(BrokerUrl.parse(self._lines[client_id].url), client_id, events.append, will)
        self._links.append(link)
        return Client(link, events)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + 15.0
        while not condition():
            assert time.monotonic() < deadline_s, "did not happen in 15 s"
            time.sleep(0.005)

    def settle(self) -> None:
        time.sleep(SETTLE_S)

    def freeze(self, client_id: str) -> None:
        self._lines[client_id].freeze()

    def cut(self, client_id: str) -> None:
        self._lines[client_id].cut()

    def heal(self, client_id: str) -> None:
        self._lines[client_id].heal()

    def restart(self) -> None:
        self.broker.restart()

    def close(self) -> None:
        for link in self._links:
            link.close()
        for line in self._lines.values():
            line.close()
