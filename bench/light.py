"""Light stores: hundreds of clients in one process and one loop, which speak the protocol that a store speaks.

A light store reads the retained head, plans, and fetches with the store's own code (`contract.messages`,
`storenode.core.intake`, `storenode.fetch`); each segment is checked against the head's SHA-256. What it leaves
out is everything behind the spool: it keeps digests instead of bytes, decodes no segment and writes no row.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

import click

from bench import packets
from contract.cloudevents import Message
from contract.digest import EMPTY
from contract.limits import MESSAGE_BYTES_MAX
from contract.messages import decode_head
from contract.streams import Stream, head_topic, live_topic
from link.port import TOPICS_PER_PACKET
from storenode.core.intake import CatchUp, Position, plan
from storenode.core.pace import Pace
from storenode.fetch import Fetch

BUFFER_BYTES = MESSAGE_BYTES_MAX + 32_768
"""One client's; the largest packet that we let the broker send."""

KEEPALIVE_S, PING_EVERY_S = 60, 20.0
RECEIVE_MAX = 65_535
TURN_S = 0.5
CATCH_UP_TIMEOUT_S = 120.0
STREAMS = (Stream("product", "all"), Stream("price", "all"))

OnMessage = Callable[[packets.Publish], None]


class LineBroken(Exception):
    """A client lost its connection, or the broker refused something; a bench ends on it."""


class Loop:
    """Serves any number of clients; owned by one thread."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._ping_s = time.monotonic() + PING_EVERY_S

    def add(self, client: Client) -> None:
        self._clients[client.fileno()] = client
        self._poll.register(client.fileno(), select.EPOLLIN)

    def remove(self, client: Client) -> None:
        if self._clients.pop(client.fileno(), None) is not None:
            self._poll.unregister(client.fileno())

    def watch_writing(self, client: Client, wanted: bool) -> None:
        self._poll.modify(client.fileno(), select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def run(self, until: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Serve until a condition holds. Raises TimeoutError, naming it, and LineBroken."""
        deadline_s = time.monotonic() + timeout_s
        while not until():
            self.turn(TURN_S)
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"not within {timeout_s:g} s: {what}")

    def turn(self, wait_s: float) -> None:
        for descriptor, ready in self._poll.poll(wait_s):
            client = self._clients.get(descriptor)
            if client is not None and ready & ~select.EPOLLOUT:
                client.read()
            if client is not None and ready & select.EPOLLOUT:
                client.write(b"")
        if time.monotonic() >= self._ping_s:
            self._ping_s = time.monotonic() + PING_EVERY_S
            for client in list(self._clients.values()):
                client.write(packets.PINGREQ_PACKET)

    def close(self) -> None:
        for client in list(self._clients.values()):
            client.close()
        self._poll.close()


class Client:
    """One connection that nobody repairs; of `link.port.Link`, what a fetch needs, and `publish`."""

    def __init__(self, loop: Loop, port: int, client_id: str, on_message: OnMessage) -> None:
        self.connected = False
        self.acknowledged = 0
        self.subscribed = 0
        self._loop = loop
        self._client_id = client_id
        self._on_message = on_message
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._filled = 0
        self._unsent = bytearray()
        self._packet_id = 0
        self._sock = socket.create_connection(("127.0.0.1", port), 10.0)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.setblocking(False)

    def fileno(self) -> int:
        return self._sock.fileno()

    def start(self) -> None:
        self._loop.add(self)
        self.write(packets.connect(self._client_id, KEEPALIVE_S, RECEIVE_MAX, BUFFER_BYTES))

    def publish(self, message: Message) -> int:
        token = self._next_id()
        self.write(packets.publish(token, message.topic, message.payload, retain=message.retain))
        return token

    def subscribe(self, topics: Sequence[str], qos: int = 1) -> None:
        for start in range(0, len(topics), TOPICS_PER_PACKET):
            self.write(packets.subscribe(self._next_id(), topics[start : start + TOPICS_PER_PACKET], qos))

    def unsubscribe(self, topics: Sequence[str]) -> None:
        for start in range(0, len(topics), TOPICS_PER_PACKET):
            self.write(packets.unsubscribe(self._next_id(), topics[start : start + TOPICS_PER_PACKET]))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.send(packets.DISCONNECT_PACKET)
        self._loop.remove(self)
        self._sock.close()

    def write(self, packet: bytes) -> None:
        """Send, and keep what the socket does not take yet."""
        waited = bool(self._unsent)
        self._unsent += packet
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
        if waited != bool(self._unsent):
            self._loop.watch_writing(self, bool(self._unsent))

    def read(self) -> None:
        """Take what has come: whole packets are obeyed, the rest waits at the buffer's beginning."""
        try:
            count = self._sock.recv_into(self._buffer[self._filled :])
        except BlockingIOError:
            return
        if not count:
            raise LineBroken(f"{self._client_id}: the broker closed the connection")
        view, at = self._buffer[: self._filled + count], 0
        acks = bytearray()
        while (found := packets.split(view[at:])) is not None:
            first, start, end = found
            self._obey(first, view[at + start : at + end], acks)
            at += end
        self._filled = len(view) - at
        self._buffer[: self._filled] = bytes(view[at:])
        if acks:
            self.write(bytes(acks))

    def _obey(self, first: int, body: memoryview, acks: bytearray) -> None:
        match first >> 4:
            case packets.PUBLISH:
                message = packets.read_publish(first, body)
                if message.qos:
                    acks += packets.puback(message.packet_id)
                self._on_message(message)
            case packets.CONNACK:
                if body[1]:
                    raise LineBroken(f"{self._client_id}: refused with code {body[1]}")
                self.connected = True
            case packets.SUBACK:
                codes = packets.reason_codes(body)
                if max(codes) >= 0x80:
                    raise LineBroken(f"{self._client_id}: a subscription is refused with code {max(codes)}")
                self.subscribed += len(codes)
            case packets.PUBACK:
                self.acknowledged += 1
            case packets.DISCONNECT:
                raise LineBroken(f"{self._client_id}: the broker says goodbye with code {body[0] if body else 0}")
            case _:
                pass

    def _next_id(self) -> int:
        self._packet_id = self._packet_id % 65_535 + 1
        return self._packet_id


class DigestSpool:
    """What has arrived and been checked, by its SHA-256; the bytes themselves are let go."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def has(self, digest: str) -> bool:
        return digest in self._known

    def put(self, digest: str, payload: bytes) -> None:
        del payload
        self._known.add(digest)

    def get(self, digest: str) -> bytes | None:
        del digest
        return None

    def sweep(self, keep: Collection[str]) -> None:
        self._known &= set(keep)


@dataclass(slots=True)
class _Following:
    """One stream of a light store."""

    stream: Stream
    fetch: Fetch
    planned: bool = False
    done: bool = False


@dataclass(slots=True)
class Tally:
    """What all clients of a process have got."""

    arrived: int = 0
    bytes: int = 0
    live: int = 0
    live_bytes: int = 0
    rejected: int = 0
    seconds_each: list[float] = field(default_factory=list)


class LightStore:
    """Catches up with every stream from nothing, then hears what is live."""

    def __init__(self, loop: Loop, port: int, root: str, name: str, tally: Tally) -> None:
        self.client = Client(loop, port, name, self._receive)
        self._root = root
        self._tally = tally
        self._following = {
            stream: _Following(stream, Fetch(stream, root, DigestSpool(), self.client, Pace())) for stream in STREAMS
        }
        self._heads = {head_topic(root, stream): stream for stream in STREAMS}
        self._lives = {live_topic(root, stream) for stream in STREAMS}

    def begin(self) -> None:
        """What `storenode.follower` does on a new connection."""
        for stream in STREAMS:
            self.client.subscribe([live_topic(self._root, stream)])
            self.client.subscribe([head_topic(self._root, stream)])

    def _receive(self, message: packets.Publish) -> None:
        if message.topic in self._lives:
            self._tally.live += 1
            self._tally.live_bytes += len(message.payload)
            return
        payload = bytes(message.payload)
        self._tally.bytes += len(payload)
        if message.topic in self._heads:
            following = self._following[self._heads[message.topic]]
            self._take_head(following, Message(message.topic, payload, True, message.content_type))
        else:
            following = self._following[self._stream_of(message.topic)]
            self._tally.rejected += not following.fetch.take(message.topic, payload, _now_ms())
        if following.planned and not following.done and not following.fetch.missing:
            following.done = True
            self.client.unsubscribe([head_topic(self._root, following.stream)])
            self._tally.arrived += all(f.done for f in self._following.values())

    def _take_head(self, following: _Following, message: Message) -> None:
        decision = plan(Position(None, 0, EMPTY), decode_head(self._root, message))
        if following.done or not isinstance(decision, CatchUp):
            return
        following.planned = True
        following.fetch.want(decision.needed, _now_ms())

    def _stream_of(self, topic: str) -> Stream:
        context, scope = topic.removeprefix(f"{self._root}/segment/").split("/")[:2]
        return Stream(context, scope)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class PlainSubscriber:
    """Takes everything that the broker keeps with two filters and counts its bytes; hashes it, too, if told so."""

    def __init__(
        self, loop: Loop, port: int, root: str, name: str, tally: Tally, bytes_each: int, *, hashes: bool
    ) -> None:
        self.client = Client(loop, port, name, self._receive)
        self._hashes = hashes
        self._root = root
        self._tally = tally
        self._lacking = bytes_each

    def begin(self) -> None:
        self.client.subscribe([f"{self._root}/segment/#", f"{self._root}/head/#"])

    def _receive(self, message: packets.Publish) -> None:
        lacked, self._lacking = self._lacking, self._lacking - len(message.payload)
        self._tally.bytes += len(message.payload)
        if self._hashes:
            sha256(bytes(message.payload)).digest()
        self._tally.arrived += lacked > 0 >= self._lacking


class Outcome(NamedTuple):
    """One line of JSON on the child's stdout."""

    seconds: float
    bytes: int
    rejected: int


def catch_up(
    loop: Loop, members: Sequence[LightStore | PlainSubscriber], tally: Tally, timeout_s: float = CATCH_UP_TIMEOUT_S
) -> Outcome:
    """Connect all, then let all begin at once; the clock runs from there until the last one has everything."""
    waiting = deque(members)
    while waiting:  # a few at a time: the broker's listen queue holds 100
        some = [waiting.popleft().client for _ in range(min(50, len(waiting)))]
        for client in some:
            client.start()
        loop.run(lambda some=some: all(c.connected for c in some), 30.0, "all connected")  # type: ignore[misc]
    began_s = time.monotonic()
    for member in members:
        member.begin()
    loop.run(lambda: tally.arrived >= len(members), timeout_s, f"all {len(members)} have everything")
    return Outcome(time.monotonic() - began_s, tally.bytes, tally.rejected)


@click.command()
@click.argument("kind", type=click.Choice(["light", "plain"]))
@click.option("--port", type=int, required=True)
@click.option("--root", default="storenode")
@click.option("--count", type=int, required=True)
@click.option("--bytes-each", type=int, default=0, help="What a plain subscriber waits for.")
@click.option("--stay", is_flag=True, help="Hear what is live until stdin ends, then tell how much that was.")
@click.option("--hashes", is_flag=True, help="A plain subscriber hashes what it gets, as a store does.")
def main(kind: str, port: int, root: str, count: int, bytes_each: int, stay: bool, hashes: bool) -> None:
    """Be COUNT clients of one kind; print what came about as JSON."""
    loop, tally = Loop(), Tally()
    names = [f"{kind}-{number:04}" for number in range(count)]
    members: list[LightStore | PlainSubscriber] = (
        [LightStore(loop, port, root, name, tally) for name in names]
        if kind == "light"
        else [PlainSubscriber(loop, port, root, name, tally, bytes_each, hashes=hashes) for name in names]
    )
    print(json.dumps(catch_up(loop, members, tally)._asdict()), flush=True)
    if stay:
        while not select.select([sys.stdin], [], [], 0)[0]:
            loop.turn(0.05)
        print(json.dumps({"live": tally.live, "live_bytes": tally.live_bytes}), flush=True)
    loop.close()


if __name__ == "__main__":
    main()
