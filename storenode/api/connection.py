"""One client's connection: uvicorn's, with what keeps one client from being in the way of another.

uvicorn ends a connection that is idle behind an answer; it waits for ever for one that never sends its request to the
end, or never reads the answer. Here every request has `REQUEST_S` from its first byte (or from the connection) to the
end of its answer, and `sweep` ends what took longer. When too many connections are open, the one that has been of no
use for the longest time makes room: a till that comes back is served even while somebody holds hundreds open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from storenode.api.limits import CONNECTIONS_MAX, REQUEST_S
from storenode.api.problems import Refused, told
from storenode.api.whole_answers import WholeAnswers


class Connection(H11Protocol):
    """See the module; owned by the event loop's thread."""

    since_s: float
    """On the loop's clock: when this connection began to be as it is, in a request or idle."""

    in_request: bool
    """Between a request's first byte (at first: from the connection on) and the end of its answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._note(in_request=True)
        self._answers = WholeAnswers(transport)
        super().connection_made(self._answers)  # type: ignore[arg-type]
        if len(self.connections) > CONNECTIONS_MAX:
            _make_room([each for each in self.connections if isinstance(each, Connection)], self)

    def handle_events(self) -> None:
        """Called for every piece that comes in, and for what came in while an answer was made."""
        if not self.in_request:
            self._note(in_request=True)
        super().handle_events()

    def on_response_complete(self) -> None:
        self._answers.end_answer()
        super().on_response_complete()
        self._note(in_request=not self.cycle.response_complete)  # the next request may have been there already

    def send_400_response(self, msg: str) -> None:
        """A request that is no HTTP gets the same document as any other mistake."""
        answer = told(Refused("bad_request", msg))
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        response = h11.Response(status_code=HTTPStatus.BAD_REQUEST, headers=headers, reason=b"Bad Request")
        for event in (response, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @property
    def is_answering(self) -> bool:
        """Whether a whole request waits for us; not for a client that does not read."""
        cycle: Any = self.cycle  # None before the first request
        return cycle is not None and not (cycle.response_complete or cycle.more_body or self.flow.write_paused)

    @property
    def is_owing(self) -> bool:
        """Whether the client is to send something, or to read it."""
        return self.in_request or self.transport.is_closing()

    def abort(self) -> None:
        self.transport.abort()

    def _note(self, *, in_request: bool) -> None:
        self.in_request, self.since_s = in_request, self.loop.time()


def sweep(connections: Iterable[Any], now_s: float) -> None:
    """End the connections whose request takes too long to come, or its answer to be read.

    One that is closing waits for its client to read; one that was idle before has waited long enough.
    """
    for each in list(connections):
        if isinstance(each, Connection) and each.is_owing and now_s - each.since_s > REQUEST_S:
            each.abort()


def _make_room(connections: Sequence[Connection], newest: Connection) -> None:
    """An aborted connection is among them until the loop comes to it; it is neither counted nor chosen again."""
    still = [each for each in connections if not each.transport.is_closing()]
    if len(still) > CONNECTIONS_MAX:
        waiting = [each for each in still if not each.is_answering]
        min(waiting, key=lambda each: each.since_s, default=newest).abort()
