"""The availability log: from when until when each stream was in which state.

It is in `outbox.db`, because it must outlive a replica that is moved away; this file is the one writer of the table
`availability`. Owned by the daemon's writer thread; it has no clock. An interval is written when it begins and when it
ends. In between its end is moved on once a minute, so a crash loses a minute at most: the time between the last write
of one daemon and the first of the next is `daemon_down`. Whatever is wrong with the file never stops the replica.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from storelink.host.logs import get_logger
from storelink.host.sqlite import transaction
from storenode.core.availability import DOWN, Interval
from storenode.errors import OutboxBusy, StorenodeError
from storenode.outbox.file import connect, translated
from storenode.replica.file import translated as translated_replica
from storenode.replica.writer import Replica

log = get_logger()

WRITTEN_EVERY_MS = 60_000
CHANGES_EVERY_MS = 1_000
"""A state that is over sooner may not be seen."""

SILENT_MS = 120_000
"""A daemon that has written nothing for so long was not at work: it hung, or the machine slept."""

KEPT_MS = 400 * 86_400_000
ROWS_MAX = 100_000
PRUNED_EVERY_MS = 3_600_000
RETRY_MS = 60_000
BUSY_TIMEOUT_S = 0.5

_LAST = (
    "SELECT a.stream, a.until_ms, a.id FROM availability AS a"
    " JOIN (SELECT max(id) AS id FROM availability GROUP BY stream) AS last ON last.id = a.id"
)

_EXISTS = "SELECT 1 FROM availability WHERE id = ?"
_INSERT = "INSERT INTO availability(stream, state, from_ms, until_ms) VALUES(?, ?, ?, ?)"


class AvailabilityLog:
    """The writer of one log. `seen_ms`: when the daemon before this one was last at work, if that is known."""

    def __init__(self, path: Path, seen_ms: int | None = None) -> None:
        self._path, self._hint_ms = path, seen_ms
        self._db: sqlite3.Connection | None = None
        self._open: dict[str, tuple[str, int]] = {}
        self._seen_ms = self._written_ms = self._changed_ms = self._pruned_ms = self._retry_ms = 0

    def step(self, states: Mapping[str, str], mono_ms: int, at_ms: int) -> None:
        """Take in the streams' states; `at_ms`: since 1970. Writes only what is due."""
        if self._db is not None and self._seen_ms - CHANGES_EVERY_MS < at_ms < self._seen_ms:
            at_ms = self._seen_ms
        if mono_ms < self._retry_ms or not self._due(states, at_ms):
            self._seen_ms = max(self._seen_ms, at_ms) if self._db is not None else 0
            return
        try:
            if self._db is None and not self._path.exists():
                return  # the sender makes it
            with translated(self._path):
                self._write(states, at_ms)
        except OutboxBusy:
            return  # the next turn tries again
        except StorenodeError as error:
            log.warning("availability_log.failed", error=str(error))
            self._retry_ms, self._hint_ms = mono_ms + RETRY_MS, at_ms
            self.close()

    def end(self, at_ms: int) -> None:
        """Write down how far the open intervals came, at a clean stop."""
        if self._db is not None:
            with suppress(StorenodeError), translated(self._path):
                self._write({stream: state for stream, (state, _) in self._open.items()}, at_ms)

    def close(self) -> None:
        """Close the file; the next `step` opens it and goes on as after a restart."""
        if self._db is not None:
            self._db.close()
        self._db, self._open = None, {}

    def _due(self, states: Mapping[str, str], at_ms: int) -> bool:
        if self._db is None or at_ms < self._seen_ms or at_ms - self._seen_ms > SILENT_MS:
            return True
        if at_ms - self._written_ms >= WRITTEN_EVERY_MS:
            return True
        changed = states != {stream: state for stream, (state, _) in self._open.items()}
        return changed and at_ms - self._changed_ms >= CHANGES_EVERY_MS

    def _write(self, states: Mapping[str, str], at_ms: int) -> None:
        fresh = self._db is None
        db = self._db = self._db or connect(self._path, BUSY_TIMEOUT_S)
        open_ = dict(self._open)
        try:
            with transaction(db):
                if fresh:
                    self._resume(db, states, at_ms)
                elif at_ms < self._seen_ms:
                    _cut(db, at_ms)
                    open_ = {s: o for s, o in open_.items() if db.execute(_EXISTS, (o[1],)).fetchone()}
                elif at_ms - self._seen_ms > SILENT_MS:
                    _extend(db, open_, self._seen_ms)
                    _insert(db, [Interval(stream, DOWN, self._seen_ms, at_ms) for stream in open_])
                    open_ = {}
                _extend(db, open_, at_ms)
                for stream, state in states.items():
                    if open_.get(stream, ("",))[0] != state:
                        open_[stream] = (state, _insert(db, [Interval(stream, state, at_ms, at_ms)]))
                if at_ms - self._pruned_ms >= PRUNED_EVERY_MS:
                    _prune(db, at_ms)
        except BaseException:
            if fresh:
                db.close()
                self._db = None
            raise
        if at_ms - self._pruned_ms >= PRUNED_EVERY_MS or at_ms < self._pruned_ms:
            self._pruned_ms = at_ms
        self._open = {stream: found for stream, found in open_.items() if stream in states}
        self._seen_ms = self._written_ms = self._changed_ms = at_ms

    def _resume(self, db: sqlite3.Connection, states: Mapping[str, str], at_ms: int) -> None:
        """End the intervals of the daemon before where it was last at work; from then on it was down."""
        _cut(db, at_ms)
        last = {stream: (until_ms, id_) for stream, until_ms, id_ in db.execute(_LAST)}
        if not last:
            return
        seen_ms = max(until_ms for until_ms, _ in last.values())
        if self._hint_ms is not None and seen_ms < self._hint_ms <= min(at_ms, seen_ms + SILENT_MS):
            left_open = {s: ("", id_) for s, (until_ms, id_) in last.items() if until_ms == seen_ms}
            seen_ms = self._hint_ms
            _extend(db, left_open, seen_ms)
        if seen_ms < at_ms:
            _insert(db, [Interval(s, DOWN, max(seen_ms, last[s][0]), at_ms) for s in states if s in last])


def _extend(db: sqlite3.Connection, open_: Mapping[str, tuple[str, int]], until_ms: int) -> None:
    db.executemany("UPDATE availability SET until_ms = ? WHERE id = ?", [(until_ms, id_) for _, id_ in open_.values()])


def _insert(db: sqlite3.Connection, intervals: list[Interval]) -> int:
    """Write intervals; returns the last one's id, 0 without one."""
    id_ = 0
    for each in intervals:
        row = (each.stream, each.state, each.from_ms, each.until_ms)
        id_ = db.execute(_INSERT, row).lastrowid or 0
    return id_


def _prune(db: sqlite3.Connection, at_ms: int) -> None:
    db.execute("DELETE FROM availability WHERE until_ms < ?", (at_ms - KEPT_MS,))
    db.execute("DELETE FROM availability WHERE id <= (SELECT max(id) FROM availability) - ?", (ROWS_MAX,))


def _cut(db: sqlite3.Connection, at_ms: int) -> None:
    """Remove what lies in the future: it was written by a clock that has been put right since."""
    db.execute("DELETE FROM availability WHERE from_ms > ?", (at_ms,))
    db.execute("UPDATE availability SET until_ms = ? WHERE until_ms > ?", (at_ms, at_ms))


def last_seen_ms(replica: Replica) -> int | None:
    """When a daemon was last at work on this replica, by the wall clock; None: never."""
    with translated_replica(replica.path):
        row = replica.connection.execute("SELECT seen_at_ms FROM daemon").fetchone()
    return row[0] if row else None


def intervals(db: sqlite3.Connection) -> list[Interval]:
    """All intervals of the log, in order of writing. Raises sqlite3.Error."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'availability'").fetchone():
        return []
    rows = db.execute("SELECT stream, state, from_ms, until_ms FROM availability ORDER BY id")
    return [Interval(*row) for row in rows]
