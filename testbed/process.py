"""A process under test or measurement: its start, what it costs, and its certain end; and waiting with a bound."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

WAIT_S = 40.0
POLL_S = 0.03
STOP_TIMEOUT_S = 20.0
LOG_TAIL_BYTES = 2_000
BIN = Path(sys.executable).parent
"""Where the commands of this environment are."""

_PROCESS_CPU_CLOCK = 2
"""CPUCLOCK_SCHED: a process's clock is named by its id, see clock_getcpuclockid(3)."""


class StepFailed(AssertionError):
    """A step did not come about; the message says which one, and shows what the process wrote."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used so far; `rss_bytes` and `descriptors` are what it holds now."""

    cpu_s: float
    rss_bytes: int
    peak_bytes: int
    descriptors: int


class Process:
    """One command, in a session of its own: Ctrl-C reaches the test bed alone, which ends the others in order.

    It can be started again after its end; `log` keeps what all its lives wrote.
    """

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.arguments, self.environ, self.log = list(arguments), dict(environ), log
        self.began_s = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with self.log.open("ab") as log:
            self.began_s = time.perf_counter()
            self._process = subprocess.Popen(
                self.arguments,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    @property
    def name(self) -> str:
        return Path(self.arguments[0]).name

    @property
    def pid(self) -> int:
        return self._started.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send(self, number: int) -> None:
        self._started.send_signal(number)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait for its end; return the exit code."""
        return self._started.wait(timeout_s)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code. Raises StepFailed if it does not end."""
        process = self._started
        process.send_signal(number)
        try:
            code = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise StepFailed(f"{self.name} did not end within {STOP_TIMEOUT_S:g} s of signal {number}") from None
        self._process = None
        return code

    def stop_well(self) -> Usage:
        """End it with SIGTERM; return what it had used. Raises StepFailed if it did not end well."""
        self.check()
        used = self.usage()
        if code := self.stop():
            raise StepFailed(f"{self.name} ended with exit code {code}:\n{self._tail()}")
        return used

    def kill(self) -> None:
        """SIGKILL; again, before its start or after its end, is harmless."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def check(self) -> None:
        """Raise StepFailed if it ended by itself."""
        code = self._started.poll()
        if code is not None:
            raise StepFailed(f"{self.name} ended by itself with exit code {code}:\n{self._tail()}")

    def usage(self) -> Usage:
        """Of a running process. The peak is VmHWM: wait4's maxrss would hold what its parent had at the fork."""
        place = Path(f"/proc/{self.pid}")
        text = (place / "status").read_text(encoding="ascii", errors="replace")
        kib = {line.partition(":")[0]: line.split()[1] for line in text.splitlines() if line.startswith("Vm")}
        cpu_ns = time.clock_gettime_ns((~self.pid << 3) | _PROCESS_CPU_CLOCK)
        descriptors = len(list((place / "fd").iterdir()))
        return Usage(cpu_ns / 1e9, int(kib["VmRSS"]) * 1024, int(kib["VmHWM"]) * 1024, descriptors)

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise StepFailed(f"{self.name} does not run")
        return self._process

    def _tail(self) -> str:
        return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")


def until(condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S, *, poll_s: float = POLL_S) -> float:
    """Wait until a condition holds; return the seconds it took. Raises StepFailed, which names `what`."""
    began_s = time.monotonic()
    while not condition():
        if time.monotonic() - began_s > timeout_s:
            raise StepFailed(f"not within {timeout_s:g} s: {what}")
        time.sleep(poll_s)
    return time.monotonic() - began_s


def command(name: str) -> str:
    """One of our commands, of the environment that runs the test bed."""
    return str(BIN / name)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment with `settings`; nobody's own settings may reach a test or a measurement."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HQ_", "STORENODE_"))}
    return kept | dict(settings)
