"""The thread of `hq run` that moves the master's write-ahead log into the file; publishing never waits for it."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from hq.errors import HqError
from hq.master.connection import connect, translated
from storelink.host.logs import get_logger

log = get_logger()

CHECKPOINT_ABOVE_BYTES = 8_388_608
"""Size of the write-ahead log at which it is moved into the file."""

LOOK_EVERY_S = 0.5
WAIT_MS = 2_000
"""How long it queues for the write lock; without, it would never come about between writers that never pause."""


class Checkpointer(threading.Thread):
    """Has connections of its own; holds writers off for as long as the copying takes. A crash loses nothing."""

    def __init__(self, path: Path) -> None:
        super().__init__(name="checkpointer", daemon=True)
        self._path = path
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_S):
            try:
                checkpoint(self._path, WAIT_MS)
            except (HqError, OSError) as error:
                log.warning("checkpoint.failed", reason=str(error))

    def stop(self) -> None:
        """Let a copying that is under way end, and nothing more begin."""
        self._stopping.set()
        if self.is_alive():
            self.join()


def checkpoint(path: Path, wait_ms: int) -> None:
    """
    Move the write-ahead log into the file as far as readers let it; only `hq run` calls this.

    It holds off writers meanwhile, and does nothing if they leave no room within `wait_ms`: SQLite before 3.51.3
    can damage the file when a commit and a checkpoint of two connections meet (sqlite.org/wal.html#walresetbug).
    """
    if path.with_name(path.name + "-wal").stat().st_size < CHECKPOINT_ABOVE_BYTES:
        return
    with translated(path), closing(connect(path, "rw")) as guard, closing(connect(path, "rw")) as mover:
        guard.execute(f"PRAGMA busy_timeout = {wait_ms}")
        try:
            guard.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return
        mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        guard.execute("ROLLBACK")
