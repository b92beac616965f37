"""strace: counting the system calls of a running process, and killing it, or failing it, at the n-th of one kind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

CHANGES = (
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "fsync",
    "fdatasync",
    "ftruncate",
    "fallocate",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "link",
    "linkat",
    "mkdir",
    "mkdirat",
    "chmod",
    "fchmod",
    "rmdir",
)
"""Whatever changes a disk; calls that this machine's architecture lacks are left out by strace itself."""

KILLED_AT = (*CHANGES, "openat", "sendto")
"""Also where a file is made, and where something is acknowledged."""

FAILED_AT = tuple(name for name in CHANGES if "chmod" not in name)
"""What a disk refuses when it is full or broken."""

WAIT_S = 20.0


def missing() -> str:
    """Why strace cannot be used here; empty if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed (apt-get install strace)"
    child = subprocess.Popen(["sleep", "30"])
    try:
        with Tracer(child.pid, ()) as tracer:
            return "" if tracer.attached else f"strace may not trace here: {tracer.words}"
    finally:
        child.kill()
        child.wait()


@dataclass(frozen=True, slots=True)
class Point:
    """The `nth` call of one name, from 1, in a run that makes the same calls every time."""

    call: str
    nth: int

    def kill(self) -> tuple[str, ...]:
        """The process dies before the call is made."""
        return "-e", f"trace={self.call}", "-e", f"inject={self.call}:signal=KILL:when={self.nth}"

    def fail(self, errno: str, *, lasting: bool) -> tuple[str, ...]:
        """The call fails and is not made; with `lasting` every later one of its name too."""
        when = f"{self.nth}+" if lasting else f"{self.nth}"
        return "-e", f"trace={self.call}", "-e", f"inject={self.call}:error={errno}:when={when}"


def points(calls: Counter[str], names: tuple[str, ...]) -> list[Point]:
    return [Point(call, nth) for call in names for nth in range(1, calls[call] + 1)]


def counting(names: tuple[str, ...]) -> tuple[str, ...]:
    return "-e", "trace=" + ",".join(f"?{name}" for name in names)


class Tracer:
    """strace on a process that waits to be let go; ends with it."""

    def __init__(self, pid: int, options: tuple[str, ...]) -> None:
        with tempfile.NamedTemporaryFile(prefix="strace-", delete=False) as out:
            self._out = Path(out.name)
        self._process = subprocess.Popen(
            ["strace", "-o", self._out, "-p", str(pid), *options], stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        self.words = self._process.stderr.readline().strip()
        self.attached = self.words.endswith("attached")

    def __enter__(self) -> Tracer:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stderr is not None
        if self._process.poll() is None:
            try:
                self._process.wait(0.05)
            except subprocess.TimeoutExpired:
                os.kill(self._process.pid, signal.SIGTERM)
        self._process.wait(WAIT_S)
        self._process.stderr.close()
        self._out.unlink()

    def let_go(self) -> None:
        """Detach: the process goes on as if nothing had ever been wrong with its disk."""
        self._process.terminate()
        self._process.wait(WAIT_S)

    def calls(self) -> Counter[str]:
        """How often each call was made; once the process has ended."""
        self._process.wait(WAIT_S)
        return Counter(found[1] for line in self._out.read_text().splitlines() if (found := re.match(r"(\w+)\(", line)))
