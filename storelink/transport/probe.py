"""A probe of the broker finds out why the line is down: step by step, each with a time limit; it changes nothing.

A probe has a client id of its own: under a daemon's id, the broker would close the daemon's connection.
"""

from __future__ import annotations

import queue
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from storelink.transport.event_queue import EventQueue
from storelink.transport.mqtt import MqttLink
from storelink.transport.port import Connected, Disconnected, Message, Received
from storelink.transport.url import BrokerUrl

RESOLVE_S = 2.5
REACH_S = 2.5
CONNECT_S = 3.0
_LINE = "check the line, the firewall, and broker"

Address = tuple[Any, ...]


class Unreached(Exception):
    """A step of a probe failed; the text is a sentence for a person, `todo` what to do about it."""

    def __init__(self, sentence: str, todo: str) -> None:
        super().__init__(sentence)
        self.todo = todo


_REFUSALS = (
    (
        ("CERTIFICATE_VERIFY_FAILED",),
        "its certificate is not one that this machine trusts",
        "install the chain's CA (update-ca-certificates); is the clock right?",
    ),
    (
        ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF", "EOF occurred"),
        "it does not speak TLS on this port",
        "mqtt:// instead of mqtts://, or the TLS port (8883)",
    ),
    (("Bad user name or password",), "user or password is wrong", "check the user and password in broker"),
    (("Not authorized", "Banned"), "it does not let this user in", "check the user and password in broker"),
    (("Unsupported protocol version",), "it does not speak MQTT 5", "use a broker that does: mosquitto 2"),
    (
        ("Server busy", "Server unavailable", "Quota exceeded", "Connection rate exceeded"),
        "it has no room for us now",
        "at the broker: its log, its limits on connections",
    ),
)
"""What a link's reason holds, what it means, what to do."""


def refused(url: BrokerUrl, reason: str) -> Unreached:
    """Put into words why an MQTT connection did not come about; `reason`: the link's."""
    for marks, meaning, todo in _REFUSALS:
        if any(mark in reason for mark in marks):
            return Unreached(f"The broker {url} refuses us: {meaning} ({reason}).", todo)
    if url.tls and "reset" in reason:
        todo = "does it speak TLS on this port? else mqtt://, or the TLS port (8883)"
        return Unreached(f"The broker {url} cuts us off as TLS begins: {reason}.", todo)
    todo = "" if url.tls else "; if its port is a TLS one: mqtts://"
    return Unreached(f"The broker {url} does not let us in: {reason}.", f"at the broker: its log{todo}")


def _unresolved(url: BrokerUrl, reason: str) -> Unreached:
    said = f"The broker's name {url.host} is not found: {reason}."
    return Unreached(said, f"getent hosts {url.host}; check DNS, and broker")


def resolve(url: BrokerUrl, timeout_s: float = RESOLVE_S) -> list[tuple[int, Address]]:
    """The broker's addresses, as (family, address). Raises Unreached, also when no answer comes in `timeout_s`."""
    found: queue.SimpleQueue[list[tuple[int, Address]] | str] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
            found.put(list(dict.fromkeys((family, address) for family, _, _, _, address in answers)))
        except (OSError, UnicodeError) as error:
            found.put(getattr(error, "strerror", None) or str(error))

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        answer = found.get(timeout=timeout_s)
    except queue.Empty:
        raise _unresolved(url, f"no answer within {timeout_s:g} s") from None
    if isinstance(answer, str):
        raise _unresolved(url, answer)
    return answer


def reach(url: BrokerUrl, addresses: Sequence[tuple[int, Address]], timeout_s: float = REACH_S) -> str:
    """Open a TCP connection to the first address that takes one; returns the address. Raises Unreached."""
    deadline_s = time.monotonic() + timeout_s
    reason = "no address"
    for number, (family, address) in enumerate(addresses):
        share_s = max(deadline_s - time.monotonic(), 0.1) / (len(addresses) - number)
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(share_s)
            try:
                sock.connect(address)
                return str(address[0])
            except TimeoutError:
                reason = f"{address[0]}: no answer within {share_s:.1f} s"
            except OSError as error:
                reason = f"{address[0]}: {error.strerror or error}"
    todo = "is the broker started, and is this its port? check broker" if "refused" in reason else _LINE
    raise Unreached(f"Nothing at {url.host}:{url.port} takes a connection: {reason}.", todo)


class Probe:
    """One MQTT connection under a client id that nobody else has; it publishes nothing and leaves no session."""

    def __init__(self, url: BrokerUrl, who: str) -> None:
        self._url, self._inbox = url, EventQueue()
        self._link = MqttLink(url, f"{who}-{secrets.token_hex(4)}", self._inbox.put)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._link.close()

    def connect(self, timeout_s: float = CONNECT_S) -> None:
        """Connect. Raises Unreached with what the broker, or TLS, says."""
        self._link.start()
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            match self._next(deadline_s):
                case Connected():
                    return
                case Disconnected(reason):
                    raise refused(self._url, reason)
                case _:
                    pass
        raise refused(self._url, f"it takes the connection but does not answer within {timeout_s:g} s")

    def listen(self, topics: Sequence[str], enough: Callable[[Message], bool], timeout_s: float) -> None:
        """Subscribe, and give each message to `enough` until it returns True or the time is over. Raises Unreached."""
        if topics:
            self._link.subscribe(topics)
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            match self._next(deadline_s):
                case Received(message):
                    if enough(message):
                        return
                case Disconnected(reason):
                    raise refused(self._url, reason)
                case _:
                    pass

    def _next(self, deadline_s: float) -> object:
        """The next event, or None when none came in time."""
        if not len(self._inbox):
            select.select([self._inbox.fileno()], [], [], max(deadline_s - time.monotonic(), 0.0))
        self._inbox.clear_wake()
        return self._inbox.pop()
