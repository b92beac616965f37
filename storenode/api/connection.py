"""One client's connection: uvicorn's, with what keeps one client from being in the way of another.

uvicorn closes a connection that is idle after an answer; but it waits for ever for a client that never sends the end of
its request, or never reads the answer. Here every request has `REQUEST_S` from its first byte (or from the connection)
to the end of its answer, and `sweep` ends a connection that takes longer. When too many connections are open, the
longest-idle connection is closed: a till that comes back is served even while somebody holds hundreds open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from storenode.api.limits import CONNECTIONS_MAX, REQUEST_S
from storenode.api.problems import Refused, error_response

_INTERIM = b"HTTP/1.1 1"


class Connection(H11Protocol):
    """One client; owned by the event loop's thread. See the module."""

    since_s: float
    """On the loop's clock: when this connection began to be as it is, in a request or idle."""

    in_request: bool
    """Between a request's first byte (at first: from the connection on) and the end of its answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._note(in_request=True)
        self._joined = JoinedWrites(transport)
        super().connection_made(self._joined)  # type: ignore[arg-type]
        if len(self.connections) > CONNECTIONS_MAX:
            _make_room([each for each in self.connections if isinstance(each, Connection)], self)

    def handle_events(self) -> None:
        """Called for every piece that comes in, and for what came in while an answer was made."""
        if not self.in_request:
            self._note(in_request=True)
        super().handle_events()

    def on_response_complete(self) -> None:
        self._joined.end_answer()
        super().on_response_complete()
        self._note(in_request=not self.cycle.response_complete)  # the next request may have been there already

    def send_400_response(self, msg: str) -> None:
        """A request that is no HTTP gets the same document as any other mistake."""
        answer = error_response(Refused("bad_request", msg))
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        response = h11.Response(status_code=HTTPStatus.BAD_REQUEST, headers=headers, reason=b"Bad Request")
        for event in (response, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @property
    def is_answering(self) -> bool:
        """Whether a complete request waits for us; not while the client does not read."""
        cycle: Any = self.cycle  # None before the first request
        return cycle is not None and not (cycle.response_complete or cycle.more_body or self.flow.write_paused)

    @property
    def awaits_client(self) -> bool:
        """Whether the client has to send something, or to read it."""
        return self.in_request or self.transport.is_closing()

    def abort(self) -> None:
        self.transport.abort()

    def _note(self, *, in_request: bool) -> None:
        self.in_request, self.since_s = in_request, self.loop.time()


def sweep(connections: Iterable[Any], now_s: float) -> None:
    """End the connections whose request takes too long to arrive, or whose answer takes too long to be read.

    A connection that is closing waits for its client to read; a connection that was idle before has waited long enough.
    """
    for each in list(connections):
        if isinstance(each, Connection) and each.awaits_client and now_s - each.since_s > REQUEST_S:
            each.abort()


def _make_room(connections: Sequence[Connection], newest: Connection) -> None:
    """Close the longest-idle connection. An aborted one is listed until the loop removes it; it does not count."""
    open_ = [each for each in connections if not each.transport.is_closing()]
    if len(open_) > CONNECTIONS_MAX:
        waiting = [each for each in open_ if not each.is_answering]
        min(waiting, key=lambda each: each.since_s, default=newest).abort()


class JoinedWrites:
    """A transport that sends an answer's head together with the beginning of its body: one call instead of two.

    uvicorn writes a head, then what there is of a body; the user of this class says when an answer ends.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._begun = False

    def __getattr__(self, name: str) -> Any:
        """Everything else is the transport's own."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._begun or data.startswith(_INTERIM):
            self._transport.write(self._head + data)
            self._head = b""
        else:
            self._head, self._begun = data, True

    def end_answer(self) -> None:
        self._send_head()
        self._begun = False

    def close(self) -> None:
        self._send_head()
        self._transport.close()

    def _send_head(self) -> None:
        """Send a head that no body followed."""
        if self._head:
            self.write(b"")
