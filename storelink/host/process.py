"""A daemon and its machine: messages to systemd, signals, memory."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress


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
