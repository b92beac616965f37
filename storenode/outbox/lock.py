"""The lock of an outbox: it has one daemon, and whoever appends can wake it.

Two daemons that send from one outbox would lose entries of it. Every user of the machine may take the address of the
wakeup. Then the daemon cannot be woken, and nothing worse happens: the sender polls every second anyway.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from storelink.host.locks import lock_instance, lock_path
from storelink.host.wakeup import Wakeup
from storenode.errors import AlreadyRunning
from storenode.outbox.file import make_directory
from storenode.outbox.store import WAKEUP


class OutboxLock:
    """Held for as long as it lives, and gone with its process; made by `take`. `wakeup`: readable after an append."""

    def __init__(self, file: IO[str] | None, wakeup: Wakeup) -> None:
        self._file = file
        self.wakeup = wakeup

    @classmethod
    def take(cls, outbox: Path) -> Self:
        """Lock an outbox, which need not be there yet. Raises AlreadyRunning when another daemon has it."""
        return cls(_locked(outbox), Wakeup.of(WAKEUP, outbox))


def _locked(outbox: Path) -> IO[str] | None:
    """None where no lock can be made: nor can an outbox, and the replica goes on without it."""
    with suppress(OSError):
        make_directory(outbox)
        file = lock_instance(lock_path(outbox))
        if file is None:
            raise AlreadyRunning(
                f"another `storenode run` has the outbox {outbox}",
                hint="give this one a path of its own: outbox / STORENODE_OUTBOX",
            )
        return file
    return None
