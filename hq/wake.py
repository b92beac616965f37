"""How a commit wakes `hq run` at once: a datagram to an abstract socket named after the master's path.

It is a hint and nothing more: whoever misses it finds the events in the master.
"""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from hq.errors import AlreadyRunning, HqError
from link import bell


def wake_address(path: Path) -> str:
    """The abstract socket address of the master at `path` (Linux)."""
    return bell.bell_address("hq", path)


def notify(path: Path) -> None:
    """Wake `hq run` of this master, if there is one. Never blocks, never fails."""
    bell.ring(wake_address(path))


def is_awake(path: Path) -> bool:
    """Whether an `hq run` of this master listens."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as caller:
            caller.connect(wake_address(path))
    except (OSError, AttributeError):
        return False
    return True


class Bell(bell.Bell):
    """The receiving end of the master at `path`."""

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(wake_address(path))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AlreadyRunning(
                    f"another `hq run` has the master {path}", hint="stop the other one first, or leave it running"
                ) from error
            raise HqError(f"cannot listen for commits: {error}", hint="hq run needs Linux") from error
