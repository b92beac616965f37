"""Provenance: which commit brought a row, so that a price can be explained down to HQ's batch and its digest.

Every apply writes its own line of the table `commits`, in the transaction of the rows; nothing else writes it. `how`
is LIVE (one line a batch of HQ) or CATCH_UP (segments and tail of one head). The newest COMMITS_MAX of each kind and
stream are kept. `published_at_ms` is by HQ's clock, `received_at_ms` and `applied_at_ms` by this machine's.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

LIVE, CATCH_UP = "live", "catch_up"
COMMITS_MAX = 4_000
PRUNE_EVERY = 500
"""Lines of a stream between two looks at how many there are; also at the first after a start."""


@dataclass(frozen=True, slots=True)
class Commit:
    """The changes `first_seq..last_seq` as they came in, but for those known before; `digest`: the stream's after.

    `received_at_ms`: when all of it was here.
    """

    how: str
    first_seq: int
    last_seq: int
    epoch: str
    digest: str
    published_at_ms: int | None
    received_at_ms: int


class Provenance:
    """Writes the table within the caller's transactions; owned by the thread that owns the connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._until_pruned: Counter[str] = Counter()

    def record(self, stream: str, commits: Sequence[Commit], after: int, applied_at_ms: int) -> None:
        """Write down what brought the stream forward from `after`."""
        self._db.executemany(
            "INSERT OR REPLACE INTO commits VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    stream,
                    c.how,
                    c.last_seq,
                    max(c.first_seq, after + 1),
                    c.epoch,
                    c.digest,
                    c.published_at_ms,
                    c.received_at_ms,
                    applied_at_ms,
                )
                for c in commits
                if c.last_seq > after
            ],
        )
        self._until_pruned[stream] -= len(commits)
        if self._until_pruned[stream] < 0:
            self._until_pruned[stream] = PRUNE_EVERY
            self._prune(stream)

    def forget(self, stream: str) -> None:
        """The stream's rows belong to another history now, or to none."""
        self._db.execute("DELETE FROM commits WHERE stream = ?", (stream,))

    def _prune(self, stream: str) -> None:
        for how in (LIVE, CATCH_UP):
            self._db.execute(
                "DELETE FROM commits WHERE stream = ?1 AND how = ?2 AND last_seq <= (SELECT last_seq FROM commits"
                " WHERE stream = ?1 AND how = ?2 ORDER BY last_seq DESC LIMIT 1 OFFSET ?3)",
                (stream, how, COMMITS_MAX),
            )


def commit_of(db: sqlite3.Connection, stream: str, seq: int) -> dict[str, object] | None:
    """The line of `commits` that brought a seq, by column; None when it is not kept any more."""
    names = ("how", "first_seq", "last_seq", "epoch", "digest", "published_at_ms", "received_at_ms", "applied_at_ms")
    for how in (LIVE, CATCH_UP):
        row = db.execute(
            f"SELECT {', '.join(names)} FROM commits WHERE stream = ? AND how = ? AND last_seq >= ?"
            " ORDER BY last_seq LIMIT 1",
            (stream, how, seq),
        ).fetchone()
        if row is not None and row[1] <= seq:
            return dict(zip(names, row, strict=True))
    return None
