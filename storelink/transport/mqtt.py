"""The line over MQTT 5: the one home of paho-mqtt.

Every call into paho is made by one thread, the link's, which polls paho's socket itself; the owner's calls
only queue commands for it. So no lock of paho's is ever held against one of ours, and an exception in a
callback comes out of `run`, where it ends the connection and not the thread. Each connection has a paho
client of its own: paho would otherwise send what the last one left unacknowledged again.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections import Counter, deque
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from storelink.contract.limits import MESSAGE_BYTES_MAX
from storelink.contract.messages import Message
from storelink.transport.connection import LineCommand, LineLost, LinkOptions, Publish, Subscribe, Unsubscribe
from storelink.transport.port import Connected, NotConnected, Published, Received, Sink, Subscribed
from storelink.transport.reconnect import ReconnectingLink
from storelink.transport.url import BrokerUrl

CONNECT_TIMEOUT_S = 5.0
CONNACK_TIMEOUT_S = 10.0
LEAVE_TIMEOUT_S = 1.0
POLL_MS = 500
QOS = 1
INFLIGHT_MAX = 100
COMMANDS_MAX = 10_000
"""Commands that the line has not taken yet; an owner that sends more does not wait for acknowledgements."""

HEAD_BYTES_MAX = 8_192
"""What topic and properties may add to a payload in the packets that we let the broker send."""


class MqttLink(ReconnectingLink):
    """A `Link` to an MQTT 5 broker."""

    def __init__(
        self, url: BrokerUrl, client_id: str, sink: Sink, will: Message | None = None, keepalive_s: int = 15
    ) -> None:
        super().__init__(Session, url, client_id, sink, will, keepalive_s)


class Session:
    """One MQTT connection, from CONNECT to its end; a `Connection`."""

    def __init__(self, options: LinkOptions, generation: int) -> None:
        self.up = False
        self.useful = False
        self.packet_bytes_max: int | None = None
        self._options = options
        self._generation = generation
        self._reason = "connection lost"
        self._overrun = False
        self._window = INFLIGHT_MAX
        self._commands: deque[LineCommand] = deque()
        self._tokens: dict[int, int] = {}
        self._topics: dict[int, tuple[str, ...]] = {}
        self._client = self._build()

    def submit(self, command: LineCommand) -> None:
        self._overrun = self._overrun or len(self._commands) >= COMMANDS_MAX
        if not self._overrun:
            self._commands.append(command)
        os.eventfd_write(self._options.wake_fd, 1)
        if self._overrun:
            raise NotConnected(f"the line is too slow: {COMMANDS_MAX} commands wait")

    def run(self) -> None:
        client, options = self._client, self._options
        client.connect(
            options.url.host, options.url.port, options.keepalive_s, clean_start=True, properties=_connect_properties()
        )
        sock: Any = client.socket()
        _tune(sock, options.keepalive_s)
        give_up_s = time.monotonic() + CONNACK_TIMEOUT_S
        poll = select.poll()
        poll.register(options.wake_fd, select.POLLIN)
        while client.socket() is not None:
            if options.closing.is_set():
                return self._disconnect()
            if not self.up and time.monotonic() > give_up_s:
                raise LineLost("the broker takes the connection but does not answer")
            if self._overrun:
                raise LineLost(f"too slow: {COMMANDS_MAX} commands wait")
            if self.up:
                self._send_commands()
                if client.socket() is None:
                    break
            self._turn(poll, sock)
        raise LineLost(self._reason)

    def dispose(self) -> None:
        self.up = False
        self._client.on_disconnect = None
        sock: Any = self._client.socket()
        if sock is not None:
            sock.close()

    def _turn(self, poll: select.poll, sock: Any) -> None:
        """Wait for the socket or a command, then let paho read, write and keep the line alive."""
        client = self._client
        poll.register(sock, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
        # What TLS has already decrypted does not show on the socket.
        decrypted = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        ready = dict(poll.poll(0 if decrypted else POLL_MS))
        if self._options.wake_fd in ready:
            os.eventfd_read(self._options.wake_fd)
        if decrypted or ready.get(sock.fileno(), 0) & ~select.POLLOUT:
            client.loop_read()
        if client.socket() is not None and client.want_write():
            client.loop_write()
        if client.socket() is not None:
            client.loop_misc()

    def _send_commands(self) -> None:
        """Hand queued commands to paho in order, as far as the broker's window allows."""
        while self._commands and self._client.socket() is not None:
            match self._commands[0]:
                case Publish(token, message):
                    if len(self._tokens) >= self._window:
                        return
                    properties = _properties(PacketTypes.PUBLISH, message)
                    info = self._client.publish(message.topic, message.payload, QOS, message.retain, properties)
                    self._tokens[_sent(info.rc, info.mid)] = token
                case Subscribe(topics):
                    asked = [(topic, SubscribeOptions(qos=QOS)) for topic in topics]
                    self._topics[_sent(*self._client.subscribe(asked))] = topics
                case Unsubscribe(topics):
                    _sent(*self._client.unsubscribe(list(topics)))
            self._commands.popleft()

    def _disconnect(self) -> None:
        """Send what waits and a DISCONNECT, on which the broker sends no will; within LEAVE_TIMEOUT_S."""
        client, deadline_s = self._client, time.monotonic() + LEAVE_TIMEOUT_S
        if not self.up:
            return
        self._send_commands()
        client.disconnect()
        while client.socket() is not None and client.want_write() and time.monotonic() < deadline_s:
            poll = select.poll()
            poll.register(client.socket().fileno(), select.POLLOUT)  # type: ignore[union-attr]
            poll.poll(50)
            client.loop_write()

    def _build(self) -> Client:
        options = self._options
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(INFLIGHT_MAX)
        if options.url.username is not None:
            client.username_pw_set(options.url.username, options.url.password)
        if options.url.tls:
            client.tls_set_context(ssl.create_default_context())
        if options.will is not None:
            properties = _properties(PacketTypes.WILLMESSAGE, options.will)
            client.will_set(options.will.topic, options.will.payload, QOS, options.will.retain, properties)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        # Its presence makes paho leave all writing to our loop.
        client.on_socket_register_write = lambda _client, _userdata, _sock: None
        return client

    def _on_connect(self, _client: Any, _userdata: Any, _flags: Any, code: Any, properties: Any) -> None:
        if code.is_failure:
            raise LineLost(f"the broker refuses us: {code}")
        # paho keeps neither limit, and a broker closes the connection of a client that breaks them.
        self._window = min(INFLIGHT_MAX, getattr(properties, "ReceiveMaximum", INFLIGHT_MAX))
        self.packet_bytes_max = getattr(properties, "MaximumPacketSize", None)
        self.up = True
        self._options.emit(Connected(self._generation))

    def _on_disconnect(self, _client: Any, _userdata: Any, flags: Any, code: Any, _properties: Any) -> None:
        if flags.is_disconnect_packet_from_server or str(code) != "Unspecified error":
            self._reason = str(code)

    def _on_message(self, _client: Any, _userdata: Any, message: MQTTMessage) -> None:
        self.useful = True
        received = _message(message, self._options.rejected)
        if received is not None:
            self._options.emit(Received(received))

    def _on_publish(self, _client: Any, _userdata: Any, mid: int, code: Any, _properties: Any) -> None:
        token = self._tokens.pop(mid)
        if code.is_failure:
            raise LineLost(f"the broker refuses a message: {code}")
        self.useful = True
        self._options.emit(Published(token))

    def _on_subscribe(self, _client: Any, _userdata: Any, mid: int, codes: Any, _properties: Any) -> None:
        asked = self._topics.pop(mid)
        granted = tuple(topic for topic, code in zip(asked, codes, strict=True) if not code.is_failure)
        self._options.rejected["subscription"] += len(asked) - len(granted)
        if granted:
            self.useful = True
            self._options.emit(Subscribed(granted))


def _sent(code: MQTTErrorCode, mid: int | None) -> int:
    if code != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
        raise LineLost(f"paho could not send: {code.name}")
    return mid


def _tune(sock: socket.socket, keepalive_s: int) -> None:
    """Send at once (Nagle costs 40 ms an exchange), and give a peer that is gone up after one keepalive."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, keepalive_s * 1000)


def _connect_properties() -> Properties:
    properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 0
    properties.MaximumPacketSize = MESSAGE_BYTES_MAX + HEAD_BYTES_MAX
    return properties  # type: ignore[no-any-return]


def _properties(packet_type: int, message: Message) -> Properties:
    properties: Any = Properties(packet_type)  # type: ignore[no-untyped-call]
    if message.content_type is not None:
        properties.ContentType = message.content_type
    if message.attributes:
        properties.UserProperty = list(message.attributes.items())
    return properties  # type: ignore[no-any-return]


def _message(message: MQTTMessage, rejected: Counter[str]) -> Message | None:
    """Make ours of paho's; None, and a count, for one that MQTT forbids or that can be read in two ways."""
    try:
        topic = message.topic
    except UnicodeDecodeError:
        rejected["topic_not_utf8"] += 1
        return None
    pairs = getattr(message.properties, "UserProperty", [])
    attributes = dict(pairs)
    if len(attributes) != len(pairs):
        rejected["repeated_property"] += 1
        return None
    content_type = getattr(message.properties, "ContentType", None)
    return Message(topic, bytes(message.payload), bool(message.retain), content_type, attributes)
