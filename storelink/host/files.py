"""Files that must be on the disk, and whose they are."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Have a file's content, or a directory's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def give_to_owner(path: Path, like: Path) -> None:
    """Have a file that root made belong to whoever has `like`, a file or the directory that it is in."""
    if os.geteuid() == 0:
        place = like.stat()
        os.chown(path, place.st_uid, place.st_gid)
