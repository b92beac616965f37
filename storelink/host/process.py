"""What both daemons owe the machine they run on: word to the supervisor, one instance, a stop flag, memory back."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from storelink.host.sqlite import no_follow


def notify_supervisor(state: str) -> None:
    """Tell systemd (`READY=1`, `WATCHDOG=1`, `STOPPING=1`); without systemd, nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, suppress(OSError):
        sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def give_back_memory() -> None:
    """Return what a burst of work left unused to the system; glibc alone keeps it. Elsewhere, nothing."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


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


def python_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of ours in a process of its own.

    -P: what lies in the working directory is no module; without it a `sqlite3.py` there would be run. -I, which also
    ignores PYTHONPATH, where this process was started so.
    """
    return [sys.executable, "-I" if sys.flags.isolated else "-P", "-m", module, *arguments]


def on_reload(flag: Callable[[], None]) -> None:
    """Call `flag` on SIGHUP; it may only set something and wake a loop. A terminal that hangs up still ends it."""
    if sys.stdin is None or not sys.stdin.isatty():
        signal.signal(signal.SIGHUP, lambda _number, _frame: flag())


def on_stop(flag: Callable[[], None]) -> None:
    """Call `flag` on SIGTERM and SIGINT; it may only set something and wake a loop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: flag())
