"""What the writer does when a job or a scan asks for it; asked through a queue, obeyed between two turns.

Owned by the writer thread, but for `submit`, which any thread may call.
"""

from __future__ import annotations

import queue
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from storelink.contract.streams import Stream
from storelink.host.logs import get_logger
from storenode.core import job_times
from storenode.core.states import ASKED
from storenode.follow.router import Router
from storenode.jobs import rebuild_request
from storenode.jobs.runner import JobRunner
from storenode.jobs.scheduler import Checkpoint, JobsFailed, Verify
from storenode.jobs.scheduler import Command as Job
from storenode.replica.verify import Damaged, Result, Verified
from storenode.replica.writer import Replica

if TYPE_CHECKING:
    from storenode.config import Settings

log = get_logger()

Command = Job | Result

LOOK_EVERY_MS = 1_000
"""How late a wish in the rebuild file is noticed."""

PROVE_AGAIN_MS = 10_000
PROVE_AGAIN_MS_MAX = 3_600_000
"""How soon a stream found wrong is proven again; doubled each time: what it is rebuilt from may be wrong too."""

WAL_BYTES_GROWN = 64 * 1024 * 1024
"""A log that stays above this after a checkpoint: a reader keeps an old snapshot open."""


class WriterCommands:
    """The queue of commands, and what each of them means."""

    def __init__(self, settings: Settings, replica: Replica, worker: Router, wake: Callable[[], None]) -> None:
        self._db, self._replica, self._worker, self._wake = settings.db, replica, worker, wake
        self._looked_ms = -LOOK_EVERY_MS
        self._found_wrong: Counter[Stream] = Counter()
        self._prove_again_ms: int | None = None
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._chores = JobRunner(settings, self.submit)

    def begin(self) -> None:
        """Start the schedule."""
        self._chores.begin()

    def stop(self) -> None:
        self._chores.stop()

    def submit(self, command: Command) -> None:
        """Have a command obeyed in the writer's next turn."""
        self._commands.put(command)
        self._wake()

    def obey(self, now_ms: int) -> None:
        """Carry out what was asked for meanwhile; `now_ms` is monotonic. Raises ReplicaDamaged if a proof said so."""
        if now_ms - self._looked_ms >= LOOK_EVERY_MS:
            self._looked_ms = now_ms
            self._rebuild_as_asked(now_ms)
        if self._prove_again_ms is not None and now_ms >= self._prove_again_ms:
            self._prove_again_ms = None
            self._obey(Verify(), now_ms)
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            self._obey(command, now_ms)

    def _obey(self, command: Command, now_ms: int) -> None:
        match command:
            case Checkpoint():
                self._checkpoint()
            case Verify():
                self._chores.verify({stream: follower.life for stream, follower in self._worker.followers.items()})
                self._worker.prove_search()
            case Verified():
                self._note_verified(command, now_ms)
            case Damaged(error) | JobsFailed(error):
                raise error
            case _:
                self._chores.do(command)

    def _note_verified(self, found: Verified, now_ms: int) -> None:
        """Write a scan's result down, unless its rows were replaced meanwhile, and heal what differs."""
        follower = self._worker.followers[found.stream]
        current = follower.life == found.life
        if current:
            self._replica.set_verified(found.stream, ok=found.ok, at_ms=time.time_ns() // 1_000_000)
        if current and found.ok:
            del self._found_wrong[found.stream]
        elif current:
            follower.rebuild("scan", now_ms)
            self._found_wrong[found.stream] += 1
        if times := self._found_wrong[found.stream]:
            self._prove_again_ms = now_ms + min(PROVE_AGAIN_MS << min(times - 1, 16), PROVE_AGAIN_MS_MAX)

    def _rebuild_as_asked(self, now_ms: int) -> None:
        wanted = rebuild_request.asked(self._db)
        for stream, follower in self._worker.followers.items():
            if stream.name in wanted:
                follower.rebuild(ASKED, now_ms)
        if wanted:
            rebuild_request.forget(self._db)

    def _checkpoint(self) -> None:
        at_ms, began_ns = time.time_ns() // 1_000_000, time.monotonic_ns()
        self._replica.checkpoint()
        wal_bytes = self._replica.wal_bytes()
        if wal_bytes > WAL_BYTES_GROWN:
            log.warning("log.grown", wal_bytes=wal_bytes)
        took_ms = (time.monotonic_ns() - began_ns) // 1_000_000
        self._chores.note(job_times.CHECKPOINT, at_ms, took_ms, f"a log of {wal_bytes} bytes")
