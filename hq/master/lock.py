"""The one `hq run` of a master: a lock beside the file says so, and goes with its process however that ends."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from hq.errors import AlreadyRunning
from hq.master.connection import make_for_group, on_disk
from storelink.host.locks import is_running, lock_instance, lock_path


def runs(db: Path) -> bool:
    """Whether an `hq run` has this master; one that may not be looked at counts."""
    return is_running(lock_path(db))


def hold(db: Path) -> IO[str]:
    """
    Let nobody else have the master at `db` until what is returned is closed.

    Raises:
        AlreadyRunning: another process has it.
        MasterUnwritable: no lock can be made.
    """
    path = lock_path(db)
    make_for_group(path)
    with on_disk(path):
        lock = lock_instance(path)
    if lock is None:
        raise AlreadyRunning(f"another `hq run` has the master {db}", hint="stop that one first: systemctl stop hq")
    return lock
