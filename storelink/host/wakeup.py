"""How one process of a machine wakes a daemon at once: a datagram to an abstract socket (Linux).

A wake-up is a hint and nothing more: a daemon that misses it finds the work by looking, a little later.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Self

from storelink.host.logs import get_logger

log = get_logger()

_DRAIN_MAX = 4096


@lru_cache
def wakeup_address(what: str, path: Path) -> str:
    """The abstract socket address of the daemon `what` of the file at `path`."""
    return f"\0storenode-{what}-" + sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]


def wake(address: str) -> None:
    """Wake whoever listens there, if anyone does. Never blocks, never fails."""
    with (
        suppress(OSError, AttributeError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender,
    ):
        sender.sendto(b"\1", address)


class Wakeup:
    """
    The receiving end; bound for as long as it lives, and gone with its process. Raises OSError if it is taken.

    `address` None: cannot be woken; poll.
    """

    def __init__(self, address: str | None) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if address is not None:
                self._socket.bind(address)
        except OSError:
            self._socket.close()
            raise

    @classmethod
    def of(cls, what: str, path: Path) -> Self:
        """
        The receiving end of the daemon `what` of the file at `path`.

        Any user of the machine may bind its address first; then it cannot be woken.
        """
        try:
            return cls(wakeup_address(what, path))
        except OSError as error:
            log.warning("wakeup.refused", path=str(path), error=str(error))
            return cls(None)

    def wait(self, timeout_s: float) -> bool:
        """Return True as soon as it is woken, False after `timeout_s`; several wake-ups in between count as one."""
        ready, _, _ = select.select([self._socket], [], [], max(0.0, timeout_s))
        return self.drain() if ready else False

    def drain(self) -> bool:
        """Forget the wake-ups so far; True if there were any."""
        for count in range(_DRAIN_MAX):
            try:
                self._socket.recv(16)
            except BlockingIOError:
                return count > 0
        return True

    def fileno(self) -> int:
        """Readable while a wake-up waits; for `select`."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()
