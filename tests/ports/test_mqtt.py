"""What only the real line can get wrong: brokers that are absent, refuse, stall, lie, and the limits they set."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import storelink.transport.mqtt
import storelink.transport.reconnect
from storelink.contract.messages import Message
from storelink.transport.mqtt import MqttLink
from storelink.transport.port import Connected, Disconnected, LinkEvent, NotConnected, Oversized
from storelink.transport.url import BrokerUrl
from testbed.broker import Broker, free_port, start_mosquitto
from testbed.cut_line import Line
from tests.ports.conftest import needs_mosquitto
from tests.ports.rigs import Client, RealRig
from tests.ports.test_link import delivered, started, subscribed


@pytest.fixture
def linked() -> Iterator[Any]:
    """Make links that are closed at the end: `linked(url, client_id, **options) -> Client`, started."""
    made: list[MqttLink] = []

    def make(url: str, client_id: str = "a", **options: Any) -> Client:
        events: list[LinkEvent] = []
        made.append(MqttLink(BrokerUrl.parse(url), client_id, options.pop("sink", events.append), **options))
        made[-1].start()
        return Client(made[-1], events)

    yield make
    for each in made:
        each.close()


@pytest.fixture
def mosquitto(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Broker]:
    with start_mosquitto(tmp_path, free_port(), settings=getattr(request, "param", "")) as broker:
        yield broker


def until(condition: Any, within_s: float = 15.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, f"did not happen in {within_s} s"
        time.sleep(0.005)


@pytest.fixture
def stub() -> Iterator[Any]:
    """A listener that answers each connection with fixed bytes and keeps it open: `stub(answer, answered) -> url`."""
    open_sockets: list[socket.socket] = []

    def make(answer: bytes, answered: list[None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        open_sockets.append(listener)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    open_sockets.append(sock)
                    sock.recv(4_096)
                    sock.sendall(answer)
                    answered.append(None)

        threading.Thread(target=serve, daemon=True).start()
        return f"mqtt://127.0.0.1:{listener.getsockname()[1]}"

    yield make
    for sock in open_sockets:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()


@needs_mosquitto
def test_a_link_may_start_before_its_broker(linked: Any, tmp_path: Path) -> None:
    port = free_port()
    a = linked(f"mqtt://127.0.0.1:{port}")
    until(lambda: bool(a.losses))
    assert "refused" in a.losses[0]
    with start_mosquitto(tmp_path, port):
        until(lambda: a.generations == [1])


def test_a_failed_attempt_is_told_once_and_tried_again(linked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = itertools.count()
    attempts: list[int] = []

    def fail(self: paho.Client) -> None:
        attempts.append(next(tried))
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(storelink.transport.reconnect, "BACKOFF_S_MAX", 0.01)
    monkeypatch.setattr(paho.Client, "_create_socket", fail)
    a = linked("mqtt://broker.invalid")
    until(lambda: len(attempts) >= 20)
    assert a.events == [Disconnected("gaierror: [Errno -2] Name or service not known")]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 200,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x20\xff\xff\xff\xff\xff",
        b"\x20\x00",
        b"\x20\x02\x00\x00",
        b"\x20\x03\x00\x77\x00",
        b"\x20\x03\x00\x9c\x00",
        b"\x20\x08\x00\x00\x05\x26\xff\xff\x00\x00",
        b"\x00",
    ],
)
def test_a_broker_that_speaks_something_else_is_left_and_tried_again(
    answer: bytes, linked: Any, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storelink.transport.mqtt, "CONNACK_TIMEOUT_S", 0.2)
    answered: list[None] = []
    a = linked(stub(answer, answered))
    until(lambda: len(answered) >= 2)
    assert len(a.losses) >= 1
    assert not a.generations or answer == b"\x20\x02\x00\x00"


def test_a_broker_that_never_answers_is_left(linked: Any, stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storelink.transport.mqtt, "CONNACK_TIMEOUT_S", 0.2)
    a = linked(stub(b"", []))
    until(lambda: a.losses == ["the broker takes the connection but does not answer"])


@needs_mosquitto
@pytest.mark.parametrize("mosquitto", ["allow_anonymous false"], indirect=True)
def test_refused_credentials_are_told_and_tried_again(linked: Any, mosquitto: Broker) -> None:
    a = linked(f"mqtt://store-7:s3cret@127.0.0.1:{mosquitto.port}")
    until(lambda: a.losses == ["the broker refuses us: Not authorized"])
    time.sleep(0.5)
    assert a.events == [Disconnected("the broker refuses us: Not authorized")]
    assert mosquitto.log.read_text().count("New connection") >= 2


@needs_mosquitto
def test_a_sink_that_fails_costs_the_connection_and_not_the_thread(linked: Any, mosquitto: Broker) -> None:
    """An exception in a callback used to end paho's thread while `is_connected()` stayed True."""
    events: list[LinkEvent] = []

    def sink(event: LinkEvent) -> None:
        events.append(event)
        if event == Connected(1):
            raise ZeroDivisionError("owner's fault")

    linked(mosquitto.url, sink=sink)
    until(lambda: Connected(2) in events)
    assert events == [Connected(1), Disconnected("ZeroDivisionError: owner's fault"), Connected(2)]


@needs_mosquitto
def test_a_sink_that_fails_on_every_event_is_served_on(linked: Any, mosquitto: Broker) -> None:
    events: list[LinkEvent] = []

    def sink(event: LinkEvent) -> None:
        events.append(event)
        raise ZeroDivisionError

    linked(mosquitto.url, sink=sink)
    until(lambda: Connected(3) in events)


@needs_mosquitto
def test_a_half_open_line_is_noticed(linked: Any, mosquitto: Broker) -> None:
    line = Line(mosquitto.port)
    a = linked(line.url, keepalive_s=1)
    until(lambda: a.generations == [1])
    line.freeze()
    began_s = time.monotonic()
    until(lambda: bool(a.losses), within_s=6.0)
    assert time.monotonic() - began_s < 3.5
    assert a.losses == ["Keep alive timeout"]
    line.close()


def test_the_brokers_receive_maximum_is_kept(linked: Any) -> None:
    """paho ignores it, and a broker may end the connection of a client that goes beyond."""
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        a = linked(f"mqtt://127.0.0.1:{listener.getsockname()[1]}")
        sock, _ = listener.accept()
    with sock:
        sock.recv(4_096)
        sock.sendall(b"\x20\x06\x00\x00\x03\x21\x00\x05")  # CONNACK, Receive Maximum 5
        until(lambda: a.generations == [1])
        for _ in range(50):
            a.link.publish(Message("t/x", b"PAYLOAD"))
        sock.settimeout(0.3)
        for acknowledged in (0, 1):
            if acknowledged:
                sock.sendall(b"\x40\x02\x00\x01")  # PUBACK of the first
            with contextlib.suppress(TimeoutError):
                while True:
                    received += sock.recv(4_096)
            assert received.count(b"PAYLOAD") == 5 + acknowledged
        assert a.acknowledged == [1]
        a.link.close()


@needs_mosquitto
@pytest.mark.parametrize("mosquitto", ["max_packet_size 20000"], indirect=True)
def test_a_message_that_this_broker_would_not_take_is_refused(linked: Any, mosquitto: Broker) -> None:
    """paho ignores the limit, and would send the message again on every connection, for ever."""
    a = linked(mosquitto.url)
    until(lambda: a.generations == [1])
    with pytest.raises(Oversized, match="t/x"):
        a.link.publish(Message("t/x", b"x" * 19_990))
    token = a.link.publish(Message("t/x", b"x" * 19_000, False, "application/json", {"id": "1"}))
    until(lambda: a.acknowledged == [token])
    assert not a.losses


@needs_mosquitto
def test_a_refused_message_breaks_the_line_instead_of_counting_as_published(
    linked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """paho calls a message published whatever the PUBACK says."""
    (tmp_path / "acl").write_text("topic read t/#\n")
    with start_mosquitto(tmp_path, free_port(), settings=f"acl_file {tmp_path / 'acl'}") as broker:
        a = linked(broker.url)
        until(lambda: a.generations == [1])
        a.link.publish(Message("t/x", b"x"))
        until(lambda: a.losses == ["the broker refuses a message: Not authorized"])
        assert a.acknowledged == []


@needs_mosquitto
def test_a_repeated_user_property_drops_the_message(linked: Any, mosquitto: Broker) -> None:
    """Two readers could take two different values for the one that is signed."""
    a = linked(mosquitto.url)
    until(lambda: a.generations == [1])
    a.link.subscribe(["t/x"])
    until(lambda: len(a.events) == 2)
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.connect("127.0.0.1", mosquitto.port)
    client.loop_start()
    for pairs in ([("id", "1"), ("id", "2")], [("id", "1"), ("id", "1")], [("id", "3")]):
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.UserProperty = pairs
        client.publish("t/x", b"x", 1, properties=properties).wait_for_publish(5.0)
    client.disconnect()
    client.loop_stop()
    until(lambda: bool(a.messages))
    assert a.messages == [Message("t/x", b"x", attributes={"id": "3"})]
    assert a.link.rejected == {"repeated_property": 2, "subscription": 0}


@needs_mosquitto
def test_a_lost_line_gives_its_unacknowledged_messages_up(mosquitto: Broker) -> None:
    """paho keeps them and sends them again after the next connect, ahead of what the owner decides then."""
    rig = RealRig(mosquitto)
    try:
        a, b = started(rig, "a"), started(rig, "b")
        subscribed(rig, b, "t/x")
        rig.freeze("a")
        for i in range(200):
            a.link.publish(Message("t/x", b"old %d" % i))
        rig.cut("a")
        rig.heal("a")
        rig.until(lambda: a.generations == [1, 2])
        delivered(rig, a, Message("t/x", b"new"))
        rig.until(lambda: bool(b.messages))
        assert b.messages == [Message("t/x", b"new")]
    finally:
        rig.close()


@needs_mosquitto
def test_an_owner_that_sends_without_end_is_stopped(
    linked: Any, mosquitto: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storelink.transport.mqtt, "COMMANDS_MAX", 50)
    line = Line(mosquitto.port)
    a = linked(line.url)
    until(lambda: a.generations == [1])
    line.freeze()
    with pytest.raises(NotConnected, match="too slow"):
        for _ in range(10_000):
            a.link.publish(Message("t/x", b"x"))
    line.heal()
    until(lambda: a.generations == [1, 2])
    assert a.losses == ["too slow: 50 commands wait"]
    line.close()


@needs_mosquitto
def test_the_line_waits_neither_to_fill_packets_nor_for_a_peer_that_is_gone(linked: Any, mosquitto: Broker) -> None:
    """Small exchanges cost 20 to 40 ms each with Nagle's algorithm on; paho leaves it on."""
    a = linked(mosquitto.url, keepalive_s=7)
    until(lambda: a.generations == [1])
    (sock,) = sockets_to(mosquitto.port)
    with sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7_000


def sockets_to(port: int) -> list[socket.socket]:
    """This process's connections to a port of the loopback, duplicated; each once, however many descriptors it has."""
    found: dict[str, socket.socket] = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            link = os.readlink(f"/proc/self/fd/{name}")
            if link.startswith("socket:") and link not in found:
                found[link] = socket.socket(fileno=os.dup(int(name)))
    wanted = [sock for sock in found.values() if _peer_port(sock) == port]
    for sock in found.values():
        if sock not in wanted:
            sock.close()
    return wanted


def _peer_port(sock: socket.socket) -> int:
    """Of a TCP connection, else 0."""
    if sock.family == socket.AF_INET:
        with contextlib.suppress(OSError):
            return int(sock.getpeername()[1])
    return 0


def test_closing_never_waits_for_a_dead_line(linked: Any, stub: Any) -> None:
    a = linked(stub(b"", []))
    time.sleep(0.1)
    began_s = time.monotonic()
    a.link.close()
    assert time.monotonic() - began_s < 1.0


def test_closing_never_waits_for_a_name_server(linked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()

    def resolve(self: paho.Client) -> None:
        asked.set()
        answer.wait(10.0)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(paho.Client, "_create_socket", resolve)
    a = linked("mqtt://broker.invalid")
    assert asked.wait(5.0)
    began_s = time.monotonic()
    a.link.close()
    assert time.monotonic() - began_s < storelink.transport.reconnect.CLOSE_TIMEOUT_S + 0.5
    answer.set()


@needs_mosquitto
def test_closing_with_a_frozen_line_keeps_its_deadline(linked: Any, mosquitto: Broker) -> None:
    line = Line(mosquitto.port)
    a = linked(line.url, "frozen")
    until(lambda: a.generations == [1])
    line.freeze()
    for _ in range(200):
        a.link.publish(Message("t/x", b"x" * 100_000))
    began_s = time.monotonic()
    a.link.close()
    assert time.monotonic() - began_s < storelink.transport.reconnect.CLOSE_TIMEOUT_S + 0.5
    until(lambda: not any(t.name == "link-frozen" for t in threading.enumerate()), within_s=5.0)
    line.close()


@needs_mosquitto
# paho drops the socket of a failed handshake without closing it; Python then does, and complains.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tls_is_verified(linked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            tmp_path / "key",
            "-out",
            tmp_path / "cert",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ],
        check=True,
        capture_output=True,
    )
    settings = f"certfile {tmp_path / 'cert'}\nkeyfile {tmp_path / 'key'}"
    with start_mosquitto(tmp_path, free_port(), settings=settings) as broker:
        stranger = linked(f"mqtts://localhost:{broker.port}", "stranger")
        until(lambda: bool(stranger.losses))
        assert "CERTIFICATE_VERIFY_FAILED" in stranger.losses[0]
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert"))
        a = linked(f"mqtts://localhost:{broker.port}")
        until(lambda: a.generations == [1])
        a.link.subscribe(["t/x"])
        token = a.link.publish(Message("t/x", b"x" * 100_000))
        until(lambda: a.acknowledged == [token] and bool(a.messages))
        assert a.messages == [Message("t/x", b"x" * 100_000)]


def test_no_secret_is_logged(linked: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        a = linked(f"mqtt://u:s3cret@127.0.0.1:{free_port()}")
        until(lambda: bool(a.losses))
    with pytest.raises(NotConnected) as caught:
        a.link.publish(Message("t/x", b""))
    assert "s3cret" not in str(caught.value) + repr(a.events) + caplog.text
