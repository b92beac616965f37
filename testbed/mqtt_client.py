"""Clients of MQTT 5 by the hundred in one process and one loop: what a subscriber needs, over non-blocking sockets."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Sequence

from storelink.contract.limits import MESSAGE_BYTES_MAX
from storelink.contract.messages import Message
from storelink.transport.port import TOPICS_PER_PACKET
from testbed import mqtt_packets as packets

BUFFER_BYTES = MESSAGE_BYTES_MAX + 32_768
"""One client's; the largest packet that we let the broker send."""

KEEPALIVE_S, PING_EVERY_S = 60, 20.0
TURN_S = 0.5

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
    """One connection that nobody repairs; of `storelink.transport.port.Link`, what a fetch needs, and `publish`."""

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
        self.write(packets.connect(self._client_id, KEEPALIVE_S, BUFFER_BYTES))

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
