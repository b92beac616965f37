"""What the writer does when a job or a scan asks for it; asked through a queue, obeyed between two turns.

Owned by the writer thread, but for `submit`, which any thread may call.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from pathlib import Path

from storenode import rebuildfile
from storenode.core.states import ASKED
from storenode.jobs import Checkpoint, Verify
from storenode.jobs import Command as Job
from storenode.proof import Damaged, Result, Verified, prove_aside
from storenode.replica import Replica
from storenode.worker import Worker

Command = Job | Result

LOOK_EVERY_MS = 1_000
"""How late a wish in the rebuild file is noticed."""


class Orders:
    """The queue of commands, and what each of them means."""

    def __init__(self, db: Path, replica: Replica, worker: Worker, wake: Callable[[], None]) -> None:
        self._db, self._replica, self._worker, self._wake = db, replica, worker, wake
        self._looked_ms = -LOOK_EVERY_MS
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def submit(self, command: Command) -> None:
        """Have a command obeyed in the writer's next turn."""
        self._commands.put(command)
        self._wake()

    def obey(self, now_ms: int) -> None:
        """Carry out what was asked for meanwhile; `now_ms` is monotonic. Raises ReplicaDamaged if a proof said so."""
        if now_ms - self._looked_ms >= LOOK_EVERY_MS:
            self._looked_ms = now_ms
            self._rebuild_as_asked(now_ms)
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            self._obey(command, now_ms)

    def _obey(self, command: Command, now_ms: int) -> None:
        match command:
            case Checkpoint():
                self._replica.checkpoint()
            case Verify():
                lives = {stream: follower.life for stream, follower in self._worker.followers.items()}
                prove_aside(self._db, lives, self.submit)
                self._worker.prove_search()
            case Verified():
                self._note_verified(command, now_ms)
            case Damaged(error):
                raise error

    def _note_verified(self, found: Verified, now_ms: int) -> None:
        """Write a scan's result down, unless its rows were replaced meanwhile, and heal what differs."""
        follower = self._worker.followers[found.stream]
        if follower.life != found.life:
            return
        self._replica.set_verified(found.stream, ok=found.ok, at_ms=time.time_ns() // 1_000_000)
        if not found.ok:
            follower.rebuild("scan", now_ms)

    def _rebuild_as_asked(self, now_ms: int) -> None:
        wanted = rebuildfile.asked(self._db)
        for stream in wanted:
            if stream in self._worker.followers:
                self._worker.followers[stream].rebuild(ASKED, now_ms)
        if wanted:
            rebuildfile.forget(self._db)
