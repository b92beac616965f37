"""A link that makes one connection after the other, for ever, with a growing random pause between failures."""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from storelink.contract.messages import Message
from storelink.host.logs import get_logger
from storelink.transport.connection import Connection, LineLost, LinkOptions, Publish, Subscribe, Unsubscribe
from storelink.transport.port import TOPICS_PER_PACKET, Disconnected, LinkEvent, NotConnected, Sink, check_size
from storelink.transport.url import BrokerUrl

log = get_logger()

BACKOFF_S_MIN = 0.2
BACKOFF_S_MAX = 5.0
"""The longest wait: a store is level again within ten seconds of the end of an outage, however long that was."""
STEADY_S = 10.0
"""A connection shorter than this does not make the next attempts quick again."""

CLOSE_TIMEOUT_S = 2.0
PACKET_BYTES_SPARE = 64
"""What a PUBLISH has besides topic, payload and attributes, generously."""


class ReconnectingLink:
    """
    A `Link` over connections that `connect` makes. One thread of the owner's calls it; its own calls the sink.

    Attributes:
        rejected: what was dropped on arrival or refused by the broker, counted by reason.
    """

    def __init__(
        self,
        connect: Callable[[LinkOptions, int], Connection],
        url: BrokerUrl,
        client_id: str,
        sink: Sink,
        will: Message | None,
        keepalive_s: int,
    ) -> None:
        self._connect = connect
        self._sink = sink
        self._closing = threading.Event()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._options = LinkOptions(url, client_id, will, keepalive_s, self._emit, self._wake_fd, self._closing)
        self._connection: Connection | None = None
        self._generation = 0
        self._tokens = itertools.count(1)
        self._reported = ""
        self._thread = threading.Thread(target=self._run, name=f"link-{client_id}", daemon=True)

    @property
    def rejected(self) -> Counter[str]:
        return self._options.rejected

    @property
    def connected(self) -> bool:
        return self._line() is not None

    def start(self) -> None:
        self._thread.start()

    def publish(self, message: Message) -> int:
        check_size(message)
        connection = self._line()
        if connection is None:
            raise NotConnected(f"no connection to {self._options.url}")
        if connection.packet_bytes_max is not None:
            head = len(message.topic) + sum(len(k) + len(v) + 5 for k, v in message.attributes.items())
            check_size(message, connection.packet_bytes_max - head - PACKET_BYTES_SPARE)
        token = next(self._tokens)
        connection.submit(Publish(token, message))
        return token

    def subscribe(self, topics: Sequence[str]) -> None:
        connection = self._line()
        if connection is not None:
            for start in range(0, len(topics), TOPICS_PER_PACKET):
                connection.submit(Subscribe(tuple(topics[start : start + TOPICS_PER_PACKET])))

    def unsubscribe(self, topics: Sequence[str]) -> None:
        connection = self._line()
        if connection is not None:
            for start in range(0, len(topics), TOPICS_PER_PACKET):
                connection.submit(Unsubscribe(tuple(topics[start : start + TOPICS_PER_PACKET])))

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        os.eventfd_write(self._wake_fd, 1)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_TIMEOUT_S)
        if not self._thread.is_alive():
            os.close(self._wake_fd)

    def _line(self) -> Connection | None:
        connection = self._connection
        return connection if connection is not None and connection.up and not self._closing.is_set() else None

    def _emit(self, event: LinkEvent) -> None:
        if not self._closing.is_set():
            self._sink(event)

    def _run(self) -> None:
        """Connect, serve, wait for a random time; for ever."""
        failures = 0
        while not self._closing.is_set():
            began_s = time.monotonic()
            useful = self._serve_once()
            failures = 0 if useful and time.monotonic() - began_s >= STEADY_S else failures + 1
            # Full jitter: thousands of stores must not come back in step.
            self._closing.wait(random.uniform(0, backoff_s(failures)))

    def _serve_once(self) -> bool:
        """Make one connection and serve it; True if it was useful. Whatever ends it becomes a `Disconnected`."""
        connection, reason = None, "closed"
        try:
            connection = self._connection = self._connect(self._options, self._generation + 1)
            connection.run()
        except LineLost as lost:
            reason = str(lost)
        except Exception as error:  # noqa: BLE001 - the top of a thread that must outlive everything
            reason = f"{type(error).__name__}: {error}"
        was_up = connection is not None and connection.up
        self._connection = None
        if connection is not None:
            connection.dispose()
        self._generation += was_up
        self._report(reason, was_up=was_up)
        return connection is not None and connection.useful

    def _report(self, reason: str, *, was_up: bool) -> None:
        if not was_up and reason == self._reported:
            return
        self._reported = reason
        try:
            self._emit(Disconnected(reason))
        except Exception:
            log.exception("sink.failed")


def backoff_s(failures: int) -> float:
    """The longest wait after so many failed attempts in a row."""
    return min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2.0 ** min(failures, 16))
