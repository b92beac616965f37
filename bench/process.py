"""A process under measurement: what it costs in CPU time and memory, and its certain end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STOP_TIMEOUT_S = 20.0
LOG_TAIL_BYTES = 2_000
_PROCESS_CPU_CLOCK = 2
"""CPUCLOCK_SCHED: a process's clock is named by its id, see clock_getcpuclockid(3)."""


class BenchFailed(Exception):
    """A measurement could not be taken; the message says which step, and shows what the process wrote."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used so far; `rss_bytes` is what it holds now."""

    cpu_s: float
    rss_bytes: int
    peak_bytes: int


class Process:
    """One command, started at once, in a session of its own: Ctrl-C reaches the bench alone, which ends the others."""

    def __init__(self, arguments: Sequence[str], settings: Mapping[str, str], log: Path) -> None:
        self.name = Path(arguments[0]).name
        self._log = log
        with log.open("ab") as file:
            self.began_s = time.perf_counter()
            self._process = subprocess.Popen(
                arguments,
                env=environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def usage(self) -> Usage:
        """Of a running process. The peak is VmHWM: wait4's maxrss would hold what the bench itself had at the fork."""
        text = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        kib = {line.partition(":")[0]: line.split()[1] for line in text.splitlines() if line.startswith("Vm")}
        cpu_ns = time.clock_gettime_ns((~self.pid << 3) | _PROCESS_CPU_CLOCK)
        return Usage(cpu_ns / 1e9, int(kib["VmRSS"]) * 1024, int(kib["VmHWM"]) * 1024)

    def check(self) -> None:
        """Raise BenchFailed if it ended by itself."""
        code = self._process.poll()
        if code is not None:
            raise BenchFailed(f"{self.name} ended by itself with exit code {code}:\n{self._tail()}")

    def stop(self) -> Usage:
        """End it with SIGTERM; return what it had used. Raises BenchFailed if it did not end well."""
        self.check()
        used = self.usage()
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BenchFailed(f"{self.name} did not end within {STOP_TIMEOUT_S:g} s of SIGTERM") from None
        if code:
            raise BenchFailed(f"{self.name} ended with exit code {code}:\n{self._tail()}")
        return used

    def kill(self) -> None:
        """SIGKILL; again, or after its end, is harmless."""
        self._process.kill()
        self._process.wait()

    def _tail(self) -> str:
        return self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")


def command(name: str) -> str:
    """One of our commands, of the environment that runs the bench."""
    return str(Path(sys.executable).parent / name)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Nobody's own settings may reach a measurement."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HQ_", "STORENODE_"))}
    return kept | dict(settings)
