"""A transport that sends an answer's head together with the beginning of its body: one call instead of two."""

from __future__ import annotations

import asyncio
from typing import Any

_INTERIM = b"HTTP/1.1 1"


class WholeAnswers:
    """uvicorn writes a head, then what there is of a body; whoever uses this says when an answer ends."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._begun = False

    def __getattr__(self, name: str) -> Any:
        """All else is the transport's own."""
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
        """One that had no body behind it."""
        if self._head:
            self.write(b"")
