"""Pooled read-only connections to the replica, and a deadline for every query.

A lookup by key is answered in the event loop itself: it takes 25 us, while waking a thread and being woken costs more
than that, and on a busy machine waits for the processor twice. What may take longer goes to a few threads.

A damaged replica is renamed and another file takes its name; a connection is closed when its file is renamed,
so each query compares the name's inode first (by `stat`: to open and close the file would drop SQLite's locks).
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from storenode.api.limits import DEADLINE_S
from storenode.api.problems import TookTooLong
from storenode.errors import ReplicaMissing
from storenode.replica.file import open_to_read, translated

T = TypeVar("T")
Query = Callable[[sqlite3.Connection], T]
"""Runs within one snapshot; must not keep the connection."""

THREADS = 4
STALL_S = 1.0
"""Beyond the deadline, which SQLite looks at between steps: a read that hangs in the disk never comes to one."""

BUSY_TIMEOUT_S = 0.5
STEPS_BETWEEN_LOOKS = 2_000
"""Of SQLite's machine: some 50 us. A lookup by key has fewer, so it is not slowed."""

CACHE_KIB = 8_192


class PooledConnection:
    """One thread's connection to the file that has the replica's name now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._deadline_s = 0.0

    def run(self, query: Query[T], deadline_s: float, *, one_statement: bool = False) -> T:
        """
        Run a query in one snapshot.

        Args:
            deadline_s: on the clock of `time.monotonic`.
            one_statement: the query is a snapshot by itself and needs no transaction, which costs a tenth of a lookup.

        Raises:
            TookTooLong: the deadline has passed.
            ReplicaMissing, ReplicaBusy, ReplicaUnwritable, ReplicaDamaged: as named.
        """
        self._deadline_s = deadline_s
        if self._is_late():
            raise TookTooLong
        with translated(self._path):
            db = self._current()
            try:
                if not one_statement:
                    db.execute("BEGIN")
                return query(db)
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_INTERRUPT:
                    raise TookTooLong from error
                self.close()
                raise
            except sqlite3.DatabaseError:
                self.close()
                raise
            finally:
                if self._db is not None and db.in_transaction:
                    db.execute("ROLLBACK")

    def close(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _current(self) -> sqlite3.Connection:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self.close()
            raise ReplicaMissing(f"there is no replica at {self._path} yet", hint="storenode status") from None
        file = (found.st_dev, found.st_ino)
        if self._db is None or file != self._file:
            self.close()
            self._db, self._file = self._open(), file
        return self._db

    def _open(self) -> sqlite3.Connection:
        db = open_to_read(self._path, BUSY_TIMEOUT_S)
        try:
            db.execute("PRAGMA query_only=ON")
            # trusted_schema stays on: for SQLite 3.40, json_extract in a view would be unsafe.
            db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        except BaseException:
            db.close()
            raise
        db.set_progress_handler(self._is_late, STEPS_BETWEEN_LOOKS)
        return db

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline_s


class ConnectionPool:
    """The connections that answer; their number bounds how many snapshots are held at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(THREADS, "query")
        self._own = threading.local()

    def look_up(self, query: Query[T], *, one_statement: bool = False) -> T:
        """Run a query that finds by key, in this thread. Raises as `PooledConnection.run`."""
        return self._run(query, time.monotonic() + DEADLINE_S, one_statement=one_statement)

    async def run(self, query: Query[T]) -> T:
        """Run a query in a thread of the pool. The deadline counts from now. Raises as `PooledConnection.run`."""
        deadline_s = time.monotonic() + DEADLINE_S
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DEADLINE_S + STALL_S):
                return await loop.run_in_executor(self._threads, self._run, query, deadline_s)
        except TimeoutError:
            raise TookTooLong from None

    def _run(self, query: Query[T], deadline_s: float, *, one_statement: bool = False) -> T:
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = PooledConnection(self._path)
        return connection.run(query, deadline_s, one_statement=one_statement)
