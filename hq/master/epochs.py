"""The epochs that the master's streams ever had: they tell this chain's heads on a broker from another's.

They are in the master file, so a copy of it knows those from before it was made, and none from after.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from storelink.contract.streams import new_epoch

if TYPE_CHECKING:
    from hq.master.store import Master

TABLE = "CREATE TABLE epochs (stream TEXT NOT NULL, epoch TEXT NOT NULL, PRIMARY KEY (stream, epoch)) WITHOUT ROWID"

END = "ffffffffffff"
"""Behind it no epoch can be named, so none is believed that could not be followed by another."""

Query = Callable[[str], list[tuple[Any, ...]]]


def begin(db: sqlite3.Connection, stream: str, now_ms: int, entropy: Callable[[], int]) -> str:
    """Name a stream's next epoch, later than any that there was, whatever the clock says; within a transaction."""
    newest = db.execute("SELECT max(epoch) FROM epochs").fetchone()[0] or ""
    after_ms = int(newest.partition("-")[0] or "0", 16)
    epoch = new_epoch(max(now_ms, after_ms + 1), entropy())
    note(db, [(stream, epoch)])
    return epoch


def note(db: sqlite3.Connection, had: Iterable[tuple[str, str]]) -> None:
    """Put (stream, epoch) among those that the master had; within a transaction."""
    db.executemany("INSERT OR IGNORE INTO epochs (stream, epoch) VALUES (?, ?)", had)


def noted(query: Query) -> list[tuple[str, str]]:
    """Every (stream, epoch) that the master had."""
    return [(stream, epoch) for stream, epoch in query("SELECT stream, epoch FROM epochs")]


def remember(master: Master, had: Iterable[tuple[str, str]]) -> None:
    """Count these (stream, epoch) among those that the master had; joins the transaction that is open in `master`."""
    for each in had:
        master.query("INSERT OR IGNORE INTO epochs (stream, epoch) VALUES (?, ?)", each)


def adopt(master: Master, heads: Mapping[str, str], now_ms: int) -> None:
    """
    Go on from other heads, epochs by stream, as if they were the master's own; in one transaction.

    A stream of the master whose epoch is not later begins a new one: stores never go back to an earlier epoch.
    """
    with master.writing():
        remember(master, heads.items())
        for row in master.streams():
            if row.epoch < heads.get(str(row.stream), ""):
                master.new_epoch(row.stream, now_ms)
