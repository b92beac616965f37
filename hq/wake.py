"""How a commit wakes `hq run` at once: a datagram to an abstract socket named after the master's path.

It is a hint and nothing more: whoever misses it finds the events in the master.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from hashlib import sha256
from pathlib import Path

from hq.errors import AlreadyRunning, HqError

_DRAIN_MAX = 4096


def wake_address(path: Path) -> str:
    """The abstract socket address of the master at `path` (Linux)."""
    return "\0storenode-hq-" + sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]


def notify(path: Path) -> None:
    """Wake `hq run` of this master, if there is one. Never blocks, never fails."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.sendto(b"\1", wake_address(path))
    except (OSError, AttributeError):
        return


def is_awake(path: Path) -> bool:
    """Whether an `hq run` of this master listens."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as caller:
            caller.connect(wake_address(path))
    except (OSError, AttributeError):
        return False
    return True


class Bell:
    """The receiving end; bound for as long as it lives, and gone with its process."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.bind(wake_address(path))
        except OSError as error:
            self._socket.close()
            if error.errno == errno.EADDRINUSE:
                raise AlreadyRunning(
                    f"another `hq run` has the master {path}", hint="stop the other one first, or leave it running"
                ) from error
            raise HqError(f"cannot listen for commits: {error}", hint="hq run needs Linux") from error

    def wait(self, timeout_s: float) -> bool:
        """Return True as soon as someone rang, False after `timeout_s`; rings in between count as one."""
        ready, _, _ = select.select([self._socket], [], [], max(0.0, timeout_s))
        if ready:
            self.drain()
        return bool(ready)

    def drain(self) -> None:
        """Forget the rings so far."""
        for _ in range(_DRAIN_MAX):
            try:
                self._socket.recv(16)
            except BlockingIOError:
                return

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()
