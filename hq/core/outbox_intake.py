"""Which entries of an outbox batch HQ takes, given what it has of that outbox: a table, without IO.

| batch, seen from *s*, through which all is here | verdict |
|-------------------------------------------------|---------|
| `acked` above s: HQ has forgotten entries       | as below, seen from `acked` |
| ends at or before s                             | Repeat  |
| begins behind s + 1                             | Gap     |
| otherwise                                       | Take    |
"""

from __future__ import annotations

from dataclasses import dataclass

from storelink.contract.upstream import OutboxBatch


@dataclass(frozen=True, slots=True)
class Take:
    """Store the entries behind `after`; `lost`: how many up to `after` HQ had acknowledged and has no more."""

    after: int
    lost: int


@dataclass(frozen=True, slots=True)
class Repeat:
    """HQ has all of it already."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries before it are missing: HQ neither takes it nor acknowledges it."""


IntakeVerdict = Take | Repeat | Gap


def judge(through: int, batch: OutboxBatch) -> IntakeVerdict:
    """Judge one batch of an outbox of which HQ has all up to `through`."""
    after = max(through, batch.acked)
    if batch.last <= after:
        return Repeat()
    if batch.first > after + 1:
        return Gap()
    return Take(after, after - through)
