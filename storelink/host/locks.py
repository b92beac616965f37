"""One daemon for each database: a lock beside the file, which goes with its process however that ends."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import IO

from storelink.host.files import no_follow

_FLOCK = struct.Struct("@hhqqi4x")
"""Linux's `struct flock`: type, whence, start, length, pid."""

_WHOLE_FILE = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def lock_path(file: Path) -> Path:
    """Where the lock of the one daemon on a database is."""
    return file.with_name(f"{file.name}.lock")


def lock_instance(path: Path) -> IO[str] | None:
    """Take the lock of the one daemon on a database; None when another holds it. Keep the file open."""
    file = open(path, "a+", encoding="ascii", opener=no_follow)  # noqa: SIM115 - lives as long as the process
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _WHOLE_FILE)
    except BlockingIOError:
        file.close()
        return None
    return file


def is_running(path: Path) -> bool:
    """Whether a daemon holds this lock; asks without taking it. One that may not be looked at counts as held."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return True
        if error.errno == errno.ELOOP:  # a symbolic link is nobody's lock
            return False
        raise
    try:
        kind: int = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _WHOLE_FILE))[0]
        return kind != fcntl.F_UNLCK
    finally:
        os.close(descriptor)
