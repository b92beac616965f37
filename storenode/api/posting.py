"""Appends the API's entries to the outbox: one thread with one connection; it answers after the entry is on disk."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from storelink.contract import codec
from storelink.contract.errors import ContractViolation
from storelink.contract.times import rfc3339
from storenode.api.limits import ANSWER_WITHIN_S
from storenode.api.problems import Refused
from storenode.outbox.store import Outbox

BUSY_TIMEOUT_S = 1.0


class _Posted(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    data: msgspec.Raw


_decoder = msgspec.json.Decoder(_Posted)


class Posting:
    """Appends entries, one after the other. Any number of requests may wait; each gets an answer or a refusal."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._thread = ThreadPoolExecutor(1, "append")
        self._outbox: Outbox | None = None
        self._file: tuple[int, int] | None = None

    async def append(self, body: bytes) -> dict[str, Any]:
        """
        Append the entry of a request; returns `{"epoch", "seq", "type", "time"}` once it is on disk.

        Raises:
            ContractViolation, BadArgument: the body is not an entry.
            OutboxFull, OutboxBusy, OutboxUnwritable, OutboxDamaged: as named; nothing was appended.
            Refused: `outcome_unknown`, the one case in which something may have been appended.
        """
        posted = codec.decode(_decoder, body)
        try:
            text = bytes(posted.data).decode()
        except UnicodeDecodeError as error:
            raise ContractViolation("bad_json", str(error), field="data") from error
        waiting = self._thread.submit(self._append, posted.type, text)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await asyncio.shield(asyncio.wrap_future(waiting))
        except TimeoutError:
            raise _unanswered(waiting) from None

    def _append(self, kind: str, text: str) -> dict[str, Any]:
        at_ms = time.time_ns() // 1_000_000
        outbox = self._current()
        seq = outbox.append_json(kind, text, at_ms)
        return {"epoch": outbox.standing().epoch, "seq": seq, "type": kind, "time": rfc3339(at_ms)}

    def _current(self) -> Outbox:
        """The outbox that has the name now: an entry in a file that was moved away would reach nobody."""
        with suppress(FileNotFoundError):
            found = self._path.stat()
            if self._outbox is not None and (found.st_dev, found.st_ino) == self._file:
                return self._outbox
        if self._outbox is not None:
            self._outbox.close()
            self._outbox = None
        self._outbox = Outbox(self._path, self._max_bytes, busy_timeout_s=BUSY_TIMEOUT_S)
        found = self._path.stat()
        self._file = (found.st_dev, found.st_ino)
        return self._outbox


def _unanswered(waiting: Future[dict[str, Any]]) -> Refused:
    if waiting.cancel():
        return Refused("outbox_busy", "the outbox is busy; nothing was appended", hint="try again")
    return Refused(
        "outcome_unknown",
        f"the disk has not answered within {ANSWER_WITHIN_S:g} s; the entry may have been accepted",
        hint="storenode outbox lists what was",
    )
