"""How a commit wakes `hq run` at once: a datagram to an abstract socket named after the master's path.

It is a hint and nothing more: whoever misses it finds the events in the master.
"""

from __future__ import annotations

from pathlib import Path

from storelink.host.wakeup import Wakeup, wake, wakeup_address

WHAT = "hq"


def notify(path: Path) -> None:
    """Wake `hq run` of this master, if there is one. Never blocks, never fails."""
    wake(wakeup_address(WHAT, path))


def wakeup_of(path: Path) -> Wakeup:
    """The receiving end of the master at `path`."""
    return Wakeup.of(WHAT, path)
