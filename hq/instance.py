"""The one `hq run` of a master: a lock beside the file says so, and goes with its process however that ends."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from hq.connection import make_for_group, on_disk
from hq.errors import AlreadyRunning
from link.files import give_to_owner
from link.process import is_running, lock_instance


def lock_path(db: Path) -> Path:
    return db.with_name(f"{db.name}.lock")


def runs(db: Path) -> bool:
    """Whether an `hq run` has this master; one that may not be looked at counts."""
    return is_running(lock_path(db))


class Instance:
    """
    Held while nobody else may have the master at `db`.

    Raises:
        AlreadyRunning: another process holds it.
        MasterUnwritable: no lock can be made.
    """

    def __init__(self, db: Path) -> None:
        path = lock_path(db)
        make_for_group(path)
        with on_disk(path):
            lock = lock_instance(path)
            give_to_owner(path, db.parent)  # what root's `hq restore` made must not keep `hq run` out
        if lock is None:
            raise AlreadyRunning(f"another `hq run` has the master {db}", hint="stop that one first: systemctl stop hq")
        self._lock = lock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._lock.close()
