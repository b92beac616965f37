"""What the writer does when a job or a scan asks for it; asked through a queue, obeyed between two turns.

Owned by the writer thread, but for `submit`, which any thread may call.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from pathlib import Path

from storenode.jobs import Checkpoint, Command, Verified, Verify, scan_aside
from storenode.replica import Replica
from storenode.worker import Worker


class Orders:
    """The queue of commands, and what each of them means."""

    def __init__(self, db: Path, replica: Replica, worker: Worker, wake: Callable[[], None]) -> None:
        self._db, self._replica, self._worker, self._wake = db, replica, worker, wake
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()

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
                self._replica.checkpoint()
            case Verify():
                scan_aside(self._db, tuple(self._worker.followers), self.submit)
            case Verified():
                self._replica.set_verified(command.stream, ok=command.ok, at_ms=time.time_ns() // 1_000_000)
