"""Runs a module with a wall clock that can be set: `shifted.py FILE MODULE ARGUMENT...`.

FILE holds one signed 64-bit integer, the nanoseconds to add, and may be changed at any moment. Python's wall clocks
follow it, in every module and in APScheduler; the monotonic clock, and with it every sleep and timeout, does not, as
when somebody sets the clock of a machine. SQLite's own 'now' stays real.
"""

from __future__ import annotations

import datetime
import mmap
import struct
import sys
import time
from runpy import run_module
from typing import Any

_OFFSET = struct.Struct("=q")
_True = datetime.datetime


def shift(file: str) -> None:
    """Set Python's wall clocks off by what is in the file; before anything else is imported."""
    with open(file, "rb") as opened:
        shared = mmap.mmap(opened.fileno(), _OFFSET.size, prot=mmap.PROT_READ)
    true_ns = time.time_ns

    def time_ns() -> int:
        return true_ns() + int(_OFFSET.unpack_from(shared)[0])

    class _Kind(type):
        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, _True)

    class Shifted(_True, metaclass=_Kind):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return _True.fromtimestamp(time_ns() / 1e9, tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(datetime.UTC).replace(tzinfo=None)

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9
    datetime.datetime = Shifted  # type: ignore[misc]


if __name__ == "__main__":
    shift(sys.argv[1])
    del sys.argv[:2]
    run_module(sys.argv[0], run_name="__main__")
