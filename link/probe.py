"""A visit to the broker, to find out why the line is down: step by step, each with a bound, and nothing is changed.

The visitor has a client id of its own: a daemon's would throw the daemon off the line.
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

from link.inbox import Inbox
from link.mqtt import MqttLink
from link.port import Connected, Disconnected, Message, Received
from link.url import BrokerUrl

RESOLVE_S = 2.5
REACH_S = 2.5
CONNECT_S = 3.0

Address = tuple[Any, ...]


class Unreached(Exception):
    """A step of a visit failed; the text says why, in the words of the system or of the broker."""


def resolve(url: BrokerUrl, timeout_s: float = RESOLVE_S) -> list[tuple[int, Address]]:
    """The broker's addresses, as (family, address). Raises Unreached; a resolver that hangs is left behind."""
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
        raise Unreached(f"no answer within {timeout_s:g} s") from None
    if isinstance(answer, str):
        raise Unreached(answer)
    return answer


def reach(addresses: Sequence[tuple[int, Address]], timeout_s: float = REACH_S) -> str:
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
    raise Unreached(reason)


class Visit:
    """One MQTT connection with a client id that is nobody's; nothing is published, and no session stays."""

    def __init__(self, url: BrokerUrl, who: str) -> None:
        self._inbox = Inbox()
        self._link = MqttLink(url, f"{who}-{secrets.token_hex(4)}", self._inbox.put)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._link.close()

    def connect(self, timeout_s: float = CONNECT_S) -> None:
        """Have the broker let us in. Raises Unreached with what it, or TLS, says."""
        self._link.start()
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            match self._next(deadline_s):
                case Connected():
                    return
                case Disconnected(reason):
                    raise Unreached(reason)
                case _:
                    pass
        raise Unreached(f"the broker takes the connection but does not answer within {timeout_s:g} s")

    def listen(self, topics: Sequence[str], enough: Callable[[Message], bool], timeout_s: float) -> None:
        """Subscribe, and hand each message to `enough` until it says so or the time is over. Raises Unreached."""
        if topics:
            self._link.subscribe(topics)
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            match self._next(deadline_s):
                case Received(message):
                    if enough(message):
                        return
                case Disconnected(reason):
                    raise Unreached(reason)
                case _:
                    pass

    def _next(self, deadline_s: float) -> object:
        """The next event, or None when none came in time."""
        if not len(self._inbox):
            select.select([self._inbox.fileno()], [], [], max(deadline_s - time.monotonic(), 0.0))
        self._inbox.clear_wake()
        return self._inbox.pop()
