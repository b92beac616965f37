"""Live batches that wait: for the end of their change set, or for a catch-up to end. Bounded, without IO."""

from __future__ import annotations

from storelink.contract.messages import Live
from storenode.core.verdicts import Position

WAITING_BYTES_MAX = 16 * 1024 * 1024
"""Payloads held back in memory; beyond that a catch-up is the shorter way."""


class Pending:
    """Contiguous batches behind a position; the last ones may not end a change set yet."""

    def __init__(self) -> None:
        self._batches: list[Live] = []
        self._size_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._batches)

    @property
    def is_full(self) -> bool:
        return self._size_bytes > WAITING_BYTES_MAX

    def add(self, live: Live, size_bytes: int) -> None:
        self._batches.append(live)
        self._size_bytes += size_bytes

    def end(self, position: Position) -> Position:
        """Where the batches end; `position` when there are none."""
        if not self._batches:
            return position
        last = self._batches[-1]
        return Position(last.epoch, last.last, last.digest)

    def take_complete(self) -> list[Live]:
        """Take out the complete change sets."""
        ends = [i for i, live in enumerate(self._batches) if live.commit]
        cut = ends[-1] + 1 if ends else 0
        complete, self._batches = self._batches[:cut], self._batches[cut:]
        if not self._batches:
            self._size_bytes = 0
        return complete

    def clear(self) -> None:
        self._batches, self._size_bytes = [], 0


class Parked:
    """Batches that came before their time, in order of arrival; a full park only means one more catch-up."""

    def __init__(self) -> None:
        self._batches: list[tuple[Live, int]] = []
        self._size_bytes = 0

    def add(self, live: Live, size_bytes: int) -> None:
        if self._size_bytes + size_bytes <= WAITING_BYTES_MAX:
            self._batches.append((live, size_bytes))
            self._size_bytes += size_bytes

    def take_all(self) -> list[tuple[Live, int]]:
        taken, self._batches, self._size_bytes = self._batches, [], 0
        return taken


class AheadOfHq:
    """Notices that HQ never had what this replica claims: several heartbeats in a row end before its position."""

    HEARTBEATS = 3
    """Each later than the one before; a single one may be an old message that was under way for long."""

    def __init__(self) -> None:
        self._count = 0
        self._at_ms = 0

    def is_proven_by(self, live: Live, at: Position) -> bool:
        """Whether this is the heartbeat that proves it."""
        if at.epoch is None or live.first <= live.last or (live.epoch, live.last) >= (at.epoch, at.seq):
            self._count = 0
        elif live.at_ms > self._at_ms:
            self._count, self._at_ms = self._count + 1, live.at_ms
        return self._count >= self.HEARTBEATS
