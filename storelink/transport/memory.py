"""The in-memory twin: a broker and its links for simulation, deterministic, without clock or threads.

Everything in flight waits in one heap, in order of delivery time. Only `advance` moves it and calls sinks,
so a run is a function of the seed and of the calls. The line keeps order in each direction, unless
`reorder` says otherwise; what was in flight on a line that is cut is gone, in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from random import Random

from storelink.contract.messages import Message
from storelink.transport.port import (
    TOPICS_PER_PACKET,
    Connected,
    Disconnected,
    LinkEvent,
    NotConnected,
    Published,
    Received,
    Sink,
    Subscribed,
    check_size,
)
from storelink.transport.topic_filters import Subscriptions, select

EVENTS_PER_ADVANCE_MAX = 1_000_000
"""More in one `advance` means that two clients answer each other without end."""


class _Session:
    """One connection as the broker sees it; dead once cut, and then nothing of it is delivered."""

    __slots__ = ("alive", "down_ms", "filters", "link", "up_ms")

    def __init__(self, link: MemoryLink) -> None:
        self.link = link
        self.alive = True
        self.filters: dict[str, None] = {}
        self.up_ms = 0
        self.down_ms = 0


class MemoryLink:
    """A `Link` to a MemoryBroker."""

    def __init__(self, broker: MemoryBroker, client_id: str, sink: Sink, will: Message | None = None) -> None:
        self.client_id = client_id
        self.will = will
        self.generation = 0
        self.session: _Session | None = None
        self.closed = False
        self._broker = broker
        self._sink = sink
        self._token = 0

    @property
    def connected(self) -> bool:
        return self.session is not None

    def start(self) -> None:
        self._broker.join(self)

    def publish(self, message: Message) -> int:
        check_size(message)
        if self.session is None:
            raise NotConnected(f"{self.client_id} is not connected")
        self._token += 1
        self._broker.take_publish(self.session, message, self._token)
        return self._token

    def subscribe(self, topics: Sequence[str]) -> None:
        for start in range(0, len(topics), TOPICS_PER_PACKET):
            if self.session is not None:
                self._broker.take_subscribe(self.session, tuple(topics[start : start + TOPICS_PER_PACKET]))

    def unsubscribe(self, topics: Sequence[str]) -> None:
        if self.session is not None and topics:
            self._broker.take_unsubscribe(self.session, tuple(topics))

    def close(self) -> None:
        self.closed = True
        if self.session is not None:
            self._broker.take_leave(self.session)
            self.session = None

    def abort(self) -> None:
        """End as a killed process does: no DISCONNECT, no further event; the broker sends the will."""
        self.closed = True
        if self.session is not None:
            session, self.session = self.session, None
            self._broker.lose(session)

    def emit(self, event: LinkEvent) -> None:
        """Hand an event to the owner, unless it has closed the link."""
        if not self.closed:
            self._sink(event)


class MemoryBroker:
    """
    A broker whose faults are attributes, to be changed at any time.

    Attributes:
        loss: probability that a live message is silently lost to one subscriber.
        loss_retained: the same for a retained message that a subscribe asked for.
        repeat: probability that a message comes twice.
        reorder: probability that a message is overtaken by those behind it.
        delay_ms_max: the longest that one direction of a line takes.
        notice_ms_max: the longest that a client takes to notice a cut.
        reconnect_ms_max: the longest that a client takes to connect again.
        redelivers_on_resubscribe: mosquitto does, rumqttd does not; nobody may need it.
        retained: what the broker keeps, by topic.
    """

    def __init__(self, rng: Random) -> None:
        self.mono_ms = 0
        self.loss = 0.0
        self.loss_retained = 0.0
        self.repeat = 0.0
        self.reorder = 0.0
        self.delay_ms_max = 0
        self.notice_ms_max = 0
        self.reconnect_ms_max = 1_000
        self.redelivers_on_resubscribe = False
        self.retained: dict[str, Message] = {}
        self._rng = rng
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._links: dict[str, MemoryLink] = {}
        self._cut: set[str] = set()
        self._subscriptions: Subscriptions[_Session] = Subscriptions()

    def advance(self, mono_ms: int) -> None:
        """Deliver all that is due up to `mono_ms`, in order of time, including what the deliveries cause."""
        for _ in range(EVENTS_PER_ADVANCE_MAX):
            if not self._heap or self._heap[0][0] > mono_ms:
                break
            at_ms, _, action = heappop(self._heap)
            self.mono_ms = max(self.mono_ms, at_ms)
            action()
        else:
            raise RuntimeError(f"{EVENTS_PER_ADVANCE_MAX} deliveries without time moving on")
        self.mono_ms = max(self.mono_ms, mono_ms)

    def next_ms(self) -> int | None:
        """When the next delivery is due, or None if nothing is in flight."""
        return self._heap[0][0] if self._heap else None

    def cut(self, client_id: str) -> None:
        """Break a client's line until `heal`; what is in flight on it is lost, the broker sends the will."""
        self._cut.add(client_id)
        link = self._links.get(client_id)
        if link is not None and link.session is not None:
            self.lose(link.session)

    def heal(self, client_id: str) -> None:
        """Mend a client's line; it connects again by itself."""
        self._cut.discard(client_id)
        link = self._links.get(client_id)
        if link is not None and link.session is None:
            self._connect_later(link)

    def forget_retained(self) -> None:
        """Lose what is kept, as a broker with a wiped disk does; connections stay."""
        self.retained.clear()

    def restart(self, *, forget: bool = False) -> None:
        """Break every connection, send no wills; clients connect again. With `forget`, nothing kept survives."""
        if forget:
            self.retained.clear()
        for link in self._links.values():
            if link.session is not None:
                self._kill(link.session, "the broker went away")

    # From here on: for MemoryLink only.

    def join(self, link: MemoryLink) -> None:
        """Connect a link; a connection of the same client id ends."""
        older = self._links.get(link.client_id)
        if older is not None and older.session is not None:
            self._kill(older.session, "session taken over")
        self._links[link.client_id] = link
        self._connect_later(link)

    def take_publish(self, session: _Session, message: Message, token: int) -> None:
        def arrive() -> None:
            self._route(message)
            self._down(session, Published(token))

        self._up(session, arrive)

    def take_subscribe(self, session: _Session, topics: tuple[str, ...]) -> None:
        def arrive() -> None:
            self._down(session, Subscribed(topics))
            for topic in topics:
                known = topic in session.filters
                session.filters[topic] = None
                self._subscriptions.add(topic, session)
                if not known or self.redelivers_on_resubscribe:
                    for message in select(self.retained, topic):
                        self._deliver(session, message, self.loss_retained)

        self._up(session, arrive)

    def take_unsubscribe(self, session: _Session, topics: tuple[str, ...]) -> None:
        def arrive() -> None:
            for topic in topics:
                session.filters.pop(topic, None)
                self._subscriptions.remove(topic, session)

        self._up(session, arrive)

    def take_leave(self, session: _Session) -> None:
        self._up(session, lambda: self._end(session))

    def lose(self, session: _Session) -> None:
        """Break one connection without a DISCONNECT; the broker sends the will."""
        if session.alive and session.link.will is not None:
            will = session.link.will
            self._at(self.mono_ms, lambda: self._route(will))
        self._kill(session, "connection lost")

    def _connect_later(self, link: MemoryLink) -> None:
        def connect() -> None:
            mine = self._links.get(link.client_id) is link
            if mine and not link.closed and link.session is None and link.client_id not in self._cut:
                link.session = _Session(link)
                link.generation += 1
                link.emit(Connected(link.generation))

        self._at(self.mono_ms + self._delay(self.reconnect_ms_max), connect)

    def _kill(self, session: _Session, reason: str) -> None:
        if not session.alive:
            return
        self._end(session)

        def notice() -> None:
            link = session.link
            if link.session is session:
                link.session = None
                link.emit(Disconnected(reason))
                self._connect_later(link)

        self._at(self.mono_ms + self._delay(self.notice_ms_max), notice)

    def _end(self, session: _Session) -> None:
        session.alive = False
        for topic in session.filters:
            self._subscriptions.remove(topic, session)

    def _delay(self, max_ms: int) -> int:
        return int(self._rng.random() * (max_ms + 1)) if max_ms else 0

    def _at(self, at_ms: int, action: Callable[[], None]) -> None:
        self._order += 1
        heappush(self._heap, (at_ms, self._order, action))

    def _up(self, session: _Session, arrive: Callable[[], None]) -> None:
        """Carry one packet to the broker, in order."""
        session.up_ms = max(session.up_ms, self.mono_ms + self._delay(self.delay_ms_max))
        self._at(session.up_ms, lambda: arrive() if session.alive else None)

    def _down(self, session: _Session, event: LinkEvent, *, held_ms: int | None = None) -> None:
        """Carry one event to the client, in order; with `held_ms`, late by that and out of order."""
        if held_ms is None:
            session.down_ms = at_ms = max(session.down_ms, self.mono_ms + self._delay(self.delay_ms_max))
        else:
            at_ms = self.mono_ms + held_ms
        self._at(at_ms, lambda: session.link.emit(event) if session.alive else None)

    def _deliver(self, session: _Session, message: Message, loss: float) -> None:
        chance = self._rng.random
        if loss and chance() < loss:
            return
        event = Received(message)
        held = self.reorder and chance() < self.reorder
        self._down(session, event, held_ms=1 + self._delay(2 * self.delay_ms_max) if held else None)
        if self.repeat and chance() < self.repeat:
            self._down(session, event, held_ms=1 + self._delay(2 * self.delay_ms_max))

    def _route(self, message: Message) -> None:
        """Keep a retained message, and pass it on to whoever is subscribed."""
        if message.retain:
            # Kept in order of first publishing, as mosquitto does.
            if message.payload:
                self.retained[message.topic] = message
            else:
                self.retained.pop(message.topic, None)
        live = replace(message, retain=False) if message.retain else message
        for session in self._subscriptions.of(message.topic):
            self._deliver(session, live, self.loss)
