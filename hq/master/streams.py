"""The tables `streams` and `epochs`: where each stream's head is, and every epoch that any stream ever had.

The only module that writes them; each function within the transaction that the caller has begun. Epochs tell this
chain's heads on a broker from another's. They are in the master file, so a copy of it knows the epochs from before it
was made, and none from after.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from storelink.contract.rows import EMPTY
from storelink.contract.streams import new_epoch

EPOCH_END = "ffffffffffff"
"""No epoch can be later, so HQ believes none that no other could follow."""

_NEXT_CHANGE = "(SELECT coalesce(max(changed), 0) + 1 FROM streams)"

Entropy = Callable[[], int]
"""Returns 32 bits that tell two epochs of the same millisecond apart."""

Query = Callable[..., list[tuple[Any, ...]]]
"""`Master.query`, or what reads as it does."""


def add(db: sqlite3.Connection, stream: str, wall_ms: int, entropy: Entropy) -> None:
    """Add a stream without rows, in an epoch of its own."""
    db.execute(
        "INSERT INTO streams (stream, epoch, head_seq, digest, rows, floor, updated_at_ms, changed)"
        f" VALUES (?, ?, 0, ?, 0, 0, ?, {_NEXT_CHANGE})",
        (stream, _next_epoch(db, stream, wall_ms, entropy), EMPTY, wall_ms),
    )


def set_head(db: sqlite3.Connection, stream: str, seq: int, digest: str, rows: int, wall_ms: int) -> None:
    db.execute(
        f"UPDATE streams SET head_seq = ?, digest = ?, rows = ?, updated_at_ms = ?, changed = {_NEXT_CHANGE}"
        " WHERE stream = ?",
        (seq, digest, rows, wall_ms, stream),
    )


def set_digest(db: sqlite3.Connection, stream: str, digest: str, wall_ms: int) -> None:
    """The rows have become others without an event."""
    sql = f"UPDATE streams SET digest = ?, updated_at_ms = ?, changed = {_NEXT_CHANGE} WHERE stream = ?"
    db.execute(sql, (digest, wall_ms, stream))


def raise_floor(db: sqlite3.Connection, stream: str, floor: int) -> None:
    """No tombstone at or below `floor` remains."""
    sql = f"UPDATE streams SET floor = max(floor, ?), changed = {_NEXT_CHANGE} WHERE stream = ?"
    db.execute(sql, (floor, stream))


def begin_epoch(db: sqlite3.Connection, stream: str, wall_ms: int, entropy: Entropy) -> str:
    """Begin a stream's next epoch, later than any that there was, whatever the clock says."""
    epoch = _next_epoch(db, stream, wall_ms, entropy)
    db.execute(f"UPDATE streams SET epoch = ?, changed = {_NEXT_CHANGE} WHERE stream = ?", (epoch, stream))
    return epoch


def remember_epochs(db: sqlite3.Connection, had: Iterable[tuple[str, str]]) -> None:
    """Count these (stream, epoch) among those that the master had."""
    db.executemany("INSERT OR IGNORE INTO epochs (stream, epoch) VALUES (?, ?)", had)


def epochs(query: Query) -> list[tuple[str, str]]:
    """Every (stream, epoch) that the master had."""
    return [(stream, epoch) for stream, epoch in query("SELECT stream, epoch FROM epochs")]


def _next_epoch(db: sqlite3.Connection, stream: str, wall_ms: int, entropy: Entropy) -> str:
    newest = db.execute("SELECT max(epoch) FROM epochs").fetchone()[0] or ""
    after_ms = int(newest.partition("-")[0] or "0", 16)
    epoch = new_epoch(max(wall_ms, after_ms + 1), entropy())
    remember_epochs(db, [(stream, epoch)])
    return epoch
