"""A bell between processes of one machine: a datagram to an abstract socket (Linux) that wakes a daemon at once.

It is a hint and nothing more: whoever misses it finds the work by looking, a little later.
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

import structlog

log = structlog.get_logger()

_DRAIN_MAX = 4096


@lru_cache
def wakeup_address(what: str, path: Path) -> str:
    """The abstract socket address of the bell `what` for the file at `path`."""
    return f"\0storenode-{what}-" + sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]


def ring(address: str) -> None:
    """Wake whoever listens, if anyone does. Never blocks, never fails."""
    with (
        suppress(OSError, AttributeError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender,
    ):
        sender.sendto(b"\1", address)


class Wakeup:
    """
    The receiving end; bound for as long as it lives, and gone with its process. Raises OSError if it is taken.

    `address` None: a deaf one, which nobody can ring.
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
    def hung(cls, what: str, path: Path) -> Self:
        """The bell `what` of the file at `path`: deaf where somebody has its address, which any user may bind."""
        try:
            return cls(wakeup_address(what, path))
        except OSError as error:
            log.warning("bell.taken", path=str(path), error=str(error))
            return cls(None)

    def wait(self, timeout_s: float) -> bool:
        """Return True as soon as someone rang, False after `timeout_s`; rings in between count as one."""
        ready, _, _ = select.select([self._socket], [], [], max(0.0, timeout_s))
        return self.drain() if ready else False

    def drain(self) -> bool:
        """Forget the rings so far; True if there were any."""
        for count in range(_DRAIN_MAX):
            try:
                self._socket.recv(16)
            except BlockingIOError:
                return count > 0
        return True

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()
