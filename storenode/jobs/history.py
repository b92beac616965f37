"""The history of jobs: the last run of each, in `outbox.db`, which outlives replicas.

So a store that starts knows what it missed. This file is the one writer of the table `jobs`.

Any thread may call; each call has a connection of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from storelink.host.sqlite import open_readonly
from storenode.outbox.file import check_outbox, connect, make, translated

BUSY_TIMEOUT_S = 10.0
DETAIL_CHARS_MAX = 300


@dataclass(frozen=True, slots=True)
class Run:
    """One job's last run. `since_ms`: when this store first had the job; `last_at_ms`: when its last run began."""

    since_ms: int
    last_at_ms: int | None
    took_ms: int | None
    ok: bool | None
    detail: str | None
    next_at_ms: int | None

    @property
    def reference_ms(self) -> int:
        """Every instant up to this was done."""
        return self.since_ms if self.last_at_ms is None else self.last_at_ms


class JobHistory:
    """The table `jobs` of one outbox; constructing it opens nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, names: Iterable[str], wall_ms: int) -> Mapping[str, Run]:
        """Enter jobs that are new here, and return them all."""
        with self._opened() as db:
            db.executemany("INSERT OR IGNORE INTO jobs(name, since_ms) VALUES(?, ?)", [(n, wall_ms) for n in names])
            return _runs(db)

    def note(
        self, name: str, at_ms: int, took_ms: int, detail: str, *, ok: bool, next_at_ms: int | None = None
    ) -> None:
        """Write down a run that has ended; `next_at_ms`: an instant that comes before the rhythm's next."""
        with self._opened() as db:
            db.execute(
                "INSERT INTO jobs(name, since_ms, last_at_ms, took_ms, ok, detail, next_at_ms)"
                " VALUES(?1, ?2, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (name) DO UPDATE SET last_at_ms = ?2, took_ms = ?3,"
                " ok = ?4, detail = ?5, next_at_ms = ?6",
                (name, at_ms, took_ms, int(ok), detail[:DETAIL_CHARS_MAX], next_at_ms),
            )

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with translated(self.path):
            if not self.path.exists():
                make(self.path)
            with closing(connect(self.path, BUSY_TIMEOUT_S)) as db:
                check_outbox(db, self.path)
                yield db


def read(path: Path) -> Mapping[str, Run]:
    """What is written down, on a read-only connection; nothing if there is no outbox yet."""
    if not path.exists():
        return {}
    with (
        translated(path),
        closing(open_readonly(path, BUSY_TIMEOUT_S)) as db,
    ):
        check_outbox(db, path)
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'jobs'").fetchone() is None:
            return {}  # an outbox of version 1
        return _runs(db)


def _runs(db: sqlite3.Connection) -> Mapping[str, Run]:
    rows = db.execute("SELECT name, since_ms, last_at_ms, took_ms, ok, detail, next_at_ms FROM jobs")
    return {
        name: Run(since, last, took, None if ok is None else bool(ok), detail, following)
        for name, since, last, took, ok, detail, following in rows
    }
