"""A disk in a file: ext4 or XFS on a loop device, whose power can be cut.

`xfs_io -x -c shutdown` stops the file system where it is: what was not synced is gone, its log is not flushed, every
further call fails. It does not tear or reorder sectors, so garbage is put behind what there is of each log. While it is
at work, both file systems answer a sync now and then with success and keep nothing (a bare loop of pwrite and fdatasync
shows it: 7 of 120): whoever writes must stand still before the power is cut, as all of a machine does.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Self

IMAGE_BYTES = {"ext4": 64 << 20, "xfs": 320 << 20}
"""The least that each takes; the images are sparse."""

GARBAGE_BYTES_MAX = 6_000


def missing() -> str:
    """Why no disk can be made here; empty if it can."""
    if os.geteuid() != 0:
        return "only root may mount a file system"
    tools = {"mkfs.ext4": "e2fsprogs", "mkfs.xfs": "xfsprogs", "xfs_io": "xfsprogs", "losetup": "mount"}
    lacking = {package for tool, package in tools.items() if shutil.which(tool) is None}
    if lacking:
        return f"apt-get install {' '.join(sorted(lacking))}"
    found = subprocess.run(["losetup", "--find"], capture_output=True, text=True, check=False)
    return "" if found.returncode == 0 else f"no loop device: {found.stderr.strip()}"


_CLONE_NEWNS = 0x00020000


@contextmanager
def own_mounts() -> Iterator[None]:
    """Give this thread, and what it starts meanwhile, mounts of its own.

    A network namespace that somebody makes meanwhile copies the mounts there are, and a file system that is mounted
    in a copy as well is not unmounted by us: it would still be the one whose power was cut.
    """
    libc, here = ctypes.CDLL(None, use_errno=True), Path.cwd()
    with open("/proc/thread-self/ns/mnt") as before:
        if libc.unshare(_CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "unshare")
        _run("mount", "--make-rprivate", "/")
        yield
        if libc.setns(before.fileno(), _CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "setns")
        os.chdir(here)  # entering a namespace leads to its root


class LoopDisk:
    """One file system; mounted from `mount` to `unmount`."""

    def __init__(self, kind: str) -> None:
        memory = Path("/dev/shm")
        # In memory: what counts is what the file system has handed down, not how long a real disk takes to keep it.
        self._room = tempfile.TemporaryDirectory(prefix="torture-", dir=memory if memory.is_dir() else None)
        self.root = Path(self._room.name) / "root"
        self._image = Path(self._room.name) / "image"
        self._mounted = False
        self.root.mkdir()
        with self._image.open("wb") as file:
            file.truncate(IMAGE_BYTES[kind])
        _run(f"mkfs.{kind}", "-q", self._image)

    def __enter__(self) -> Self:
        self.mount()
        return self

    def __exit__(self, *_: object) -> None:
        self.unmount()
        self._room.cleanup()

    def mount(self) -> None:
        _run("mount", "-o", "loop", self._image, self.root)
        self._mounted = True

    def unmount(self) -> None:
        if self._mounted:
            _run("umount", self.root)
            self._mounted = False

    def cut(self) -> None:
        """Cut the power."""
        _run("xfs_io", "-x", "-c", "shutdown", self.root)

    def come_back(self, rng: Random) -> None:
        """Power is back: what had been synced is there, and garbage may lie behind the end of a log."""
        self.unmount()
        self.mount()
        for log in self.root.rglob("*-wal"):
            if rng.random() < 0.5:
                with log.open("ab") as file:
                    file.write(rng.randbytes(rng.randint(1, GARBAGE_BYTES_MAX)))


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
