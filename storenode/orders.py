"""What the writer does when a job or a scan asks for it; asked through a queue, obeyed between two turns.

Owned by the writer thread, but for `submit`, which any thread may call.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from storenode.chores import Chores
from storenode.core import due
from storenode.jobs import Checkpoint, Command, JobsFailed, Verified
from storenode.replica import Replica
from storenode.worker import Worker

if TYPE_CHECKING:
    from storenode.config import Settings

log = structlog.get_logger()

WAL_BYTES_GROWN = 64 * 1024 * 1024
"""A log that stays above this after a checkpoint: a reader keeps an old snapshot open."""


class Orders:
    """The queue of commands, and what each of them means."""

    def __init__(self, settings: Settings, replica: Replica, worker: Worker, wake: Callable[[], None]) -> None:
        self._replica, self._wake = replica, wake
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._chores = Chores(settings, tuple(worker.followers), self.submit)

    def begin(self) -> None:
        """Start the schedule."""
        self._chores.begin()

    def stop(self) -> None:
        self._chores.stop()

    def submit(self, command: Command) -> None:
        """Have a command obeyed in the writer's next turn."""
        self._commands.put(command)
        self._wake()

    def obey(self) -> None:
        """Carry out what was asked for meanwhile."""
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            self._obey(command)

    def _obey(self, command: Command) -> None:
        match command:
            case Checkpoint():
                self._checkpoint()
            case Verified():
                self._replica.set_verified(command.stream, ok=command.ok, at_ms=time.time_ns() // 1_000_000)
            case JobsFailed():
                raise command.error
            case _:
                self._chores.do(command)

    def _checkpoint(self) -> None:
        at_ms, began_ns = time.time_ns() // 1_000_000, time.monotonic_ns()
        self._replica.checkpoint()
        wal_bytes = self._replica.wal_bytes()
        if wal_bytes > WAL_BYTES_GROWN:
            log.warning("log.grown", wal_bytes=wal_bytes)
        took_ms = (time.monotonic_ns() - began_ns) // 1_000_000
        self._chores.note(due.CHECKPOINT, at_ms, took_ms, f"a log of {wal_bytes} bytes")
