"""The one daemon of an outbox: a lock beside its file says so, and a bell lets others wake it.

Two daemons that send from one outbox would lose entries of it. The bell's address is open to every user of the
machine, so whoever takes it may make the daemon deaf, and nothing more: the sender looks every second anyway.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import IO

from storelink.host.locks import lock_instance, lock_path
from storelink.host.wakeup import Wakeup
from storenode.errors import AlreadyRunning
from storenode.outbox.file import make_directory
from storenode.outbox.store import BELL


class OutboxLock:
    """Held for as long as it lives, and gone with its process. Raises AlreadyRunning when another daemon has it."""

    def __init__(self, outbox: Path) -> None:
        self._lock = _locked(outbox)
        self.bell = Wakeup.of(BELL, outbox)


def _locked(outbox: Path) -> IO[str] | None:
    """None where no lock can be made: nor can an outbox, and the replica goes on without it."""
    with suppress(OSError):
        make_directory(outbox)
        lock = lock_instance(lock_path(outbox))
        if lock is None:
            raise AlreadyRunning(
                f"another `storenode run` has the outbox {outbox}",
                hint="give this one a path of its own: outbox / STORENODE_OUTBOX",
            )
        return lock
    return None
