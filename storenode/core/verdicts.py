"""What to do with a message from HQ, given the replica's position, and the batches that wait meanwhile; without IO.

| batch, seen from position p         | verdict |
|--------------------------------------|---------|
| of an older epoch                    | Repeat  |
| of a newer epoch                     | Fork    |
| ends at p with another digest        | Fork    |
| ends at or before p                  | Repeat  |
| begins behind p + 1                  | Gap     |
| begins at p + 1 on another digest    | Fork    |
| otherwise                            | Advance |
"""

from __future__ import annotations

from dataclasses import dataclass

from storelink.contract.messages import Head, Live, SegmentRef


@dataclass(frozen=True, slots=True)
class Position:
    """How far a replica (or its unfinished change set) has come; epoch None: never bootstrapped."""

    epoch: str | None
    seq: int
    digest: str


@dataclass(frozen=True, slots=True)
class Advance:
    """Apply what lies behind the position."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """Nothing new. `current`: it proves that the position is HQ's newest."""

    current: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """Changes up to `missing_to` are missing."""

    missing_to: int


@dataclass(frozen=True, slots=True)
class Fork:
    """The histories differ; only a rebuild helps."""

    reason: str


BatchVerdict = Advance | Repeat | Gap | Fork

AHEAD = "ahead"
"""Why a rebuild is due: the replica claims more than HQ has."""


def judge(position: Position, live: Live) -> BatchVerdict:
    """Judge one live batch."""
    if position.epoch is None:
        return Gap(live.last)
    if live.epoch != position.epoch:
        return Fork("epoch") if live.epoch > position.epoch else Repeat(current=False)
    if live.last <= position.seq:
        if live.last == position.seq and live.digest != position.digest:
            return Fork("digest")
        return Repeat(current=live.last == position.seq)
    if live.first > position.seq + 1:
        return Gap(live.first - 1)
    if live.first == position.seq + 1 and live.prev_digest != position.digest:
        return Fork("prev_digest")
    return Advance()


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Fetch `needed`, then apply them and the head's tail; `replace`: why instead of the rows there are, if so."""

    head: Head
    needed: tuple[SegmentRef, ...]
    replace: str | None


@dataclass(frozen=True, slots=True)
class UpToDate:
    """The head holds nothing that the replica lacks."""


@dataclass(frozen=True, slots=True)
class Stale:
    """A head of an earlier epoch, or older than a known gap or than rows that are to be rebuilt: wait for the next.

    Readers never go back in time.
    """


Plan = CatchUp | UpToDate | Stale


def plan(position: Position, head: Head, *, missing_to: int = 0, rebuild_due: str | None = None) -> Plan:
    """
    Decide what a head asks of a replica at `position`.

    Args:
        missing_to: changes up to here are known to exist; an older head does not end the gap.
        rebuild_due: why the rows there are to be replaced; None: they are not. AHEAD: the position counts for
            nothing either.
    """
    if position.epoch is None or rebuild_due == AHEAD:
        return _from(head, 0, rebuild_due or "bootstrap")
    needed_to = missing_to if rebuild_due is None else max(missing_to, position.seq)
    if (head.epoch, head.seq) < (position.epoch, needed_to):
        return Stale()
    if rebuild_due is not None or head.epoch != position.epoch:
        return _from(head, 0, rebuild_due or "epoch")
    if head.seq < position.seq or (head.seq == position.seq and head.digest == position.digest):
        return UpToDate()
    if head.seq == position.seq:
        return _from(head, 0, "digest")
    if position.seq < head.floor and position.seq > 0:
        return _from(head, 0, "floor")
    return _from(head, position.seq, None)


def _from(head: Head, seq: int, replace: str | None) -> CatchUp:
    return CatchUp(head, tuple(s for s in head.segments if s.last > seq), replace)


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
