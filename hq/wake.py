"""How a commit wakes `hq run` at once: a datagram to an abstract socket named after the master's path.

It is a hint and nothing more: whoever misses it finds the events in the master.
"""

from __future__ import annotations

from pathlib import Path

from link.bell import Bell, bell_address, ring

WHAT = "hq"


def notify(path: Path) -> None:
    """Wake `hq run` of this master, if there is one. Never blocks, never fails."""
    ring(bell_address(WHAT, path))


def bell_of(path: Path) -> Bell:
    """The receiving end of the master at `path`."""
    return Bell.hung(WHAT, path)
