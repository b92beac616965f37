"""The override copy: takes the store's own prices from the outbox's file into the replica, where the views find them.

What it writes there, in one transaction: storenode/replica/overrides.py. The daemon's writer does it; or, with the
daemon dead, a command that holds the daemon's lock meanwhile.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from storelink.host.logs import get_logger
from storelink.host.process import python_command
from storelink.host.sqlite import open_file
from storenode.core.overrides import Override
from storenode.outbox.overrides import read
from storenode.replica import schema
from storenode.replica.file import translated
from storenode.replica.overrides import copy
from storenode.replica.writer import Replica

log = get_logger()

LOOK_EVERY_MS = 5_000
"""How late an override is noticed whose bell was not heard, and how soon an unreadable outbox is tried again."""

TIMEOUT_S = 1.0
ALONE_TIMEOUT_S = 10.0


class OverrideCopy:
    """Keeps a replica's copy equal to the outbox's file; owned by the writer thread, whose connection it uses.

    An outbox that cannot be read changes nothing: what was copied goes on until it ends.
    """

    def __init__(self, outbox: Path, replica: Replica, store_id: str) -> None:
        self._path, self._replica, self._store_id = outbox, replica, store_id
        self._outbox: sqlite3.Connection | None = None
        self._copied: int | None = None
        self._look_ms = 0

    def step(self, now_ms: int, *, rung: bool) -> None:
        """Look whether there is something to copy; `rung`: somebody has written to the outbox."""
        if not rung and now_ms < self._look_ms:
            return
        self._look_ms = now_ms + LOOK_EVERY_MS
        try:
            rows = self._news()
        except sqlite3.Error:
            self._forget()  # the sender says what is wrong with the file
            return
        if rows is None:
            return
        with translated(self._replica.path):
            changed = copy(self._replica.connection, rows, self._store_id)
        if changed:
            log.info("overrides.copied", overrides=len(rows))

    def _news(self) -> list[Override] | None:
        """What the outbox has, when that may differ from what was copied."""
        if self._outbox is None:
            if not self._path.exists():
                return None
            self._outbox = open_file(self._path, "ro", TIMEOUT_S)
        (newest,) = self._outbox.execute("SELECT coalesce(max(changed_seq), 0) FROM overrides").fetchone()
        if newest == self._copied:
            return None
        self._copied = newest
        return read(self._outbox)

    def _forget(self) -> None:
        if self._outbox is not None:
            with suppress(sqlite3.Error):
                self._outbox.close()
        self._outbox, self._copied = None, None


def copy_alone(db: Path, outbox: Path, store_id: str) -> bool:
    """Copy while no daemon runs; the caller holds its lock. False if this user may not, or there is no replica yet.

    A process of its own does it and leaves without closing: a last close would remove -wal and -shm, without which
    a till that may not write the directory cannot open the file.
    """
    try:
        done = subprocess.run(  # noqa: S603 - this very program
            python_command("storenode.outbox.override_copy", str(db), str(outbox), store_id),
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=ALONE_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _main(db: str, outbox: str, store_id: str) -> int:
    """Copy once, and leave the connection open."""
    replica = open_file(Path(db), "rw", TIMEOUT_S)
    ident, version = (replica.execute(f"PRAGMA {p}").fetchone()[0] for p in ("application_id", "user_version"))
    if (ident, version) != (schema.APPLICATION_ID, schema.VERSION):
        return 3  # the daemon brings it to this version, and copies then
    replica.execute("PRAGMA wal_autocheckpoint=0")
    copy(replica, read(open_file(Path(outbox), "ro", TIMEOUT_S)), store_id)
    return 0


if __name__ == "__main__":
    try:
        code = _main(*sys.argv[1:])
    except sqlite3.Error:
        code = 1
    os._exit(code)
