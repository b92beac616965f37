"""The commands that jobs and proofs give the writer: a queue, and what the writer does for each command.

Owned by the writer thread; `submit` may be called by any thread.
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
from storenode.jobs.background import Background
from storenode.jobs.runner import JobRunner
from storenode.jobs.scheduler import Checkpoint, Job, SchedulerFailed, Verify
from storenode.replica.verify import Damaged, Result, Verified
from storenode.replica.writer import Replica

if TYPE_CHECKING:
    from storenode.config import Settings

log = get_logger()

WriterCommand = Job | SchedulerFailed | Result

LOOK_EVERY_MS = 1_000
"""How late a request in the rebuild file is noticed."""

PROVE_AGAIN_MS = 10_000
PROVE_AGAIN_MS_MAX = 3_600_000
"""How soon a stream found wrong is proven again; doubled each time: what it is rebuilt from may be wrong too."""

WAL_BYTES_GROWN = 64 * 1024 * 1024
"""A log that stays above this after a checkpoint: a reader keeps an old snapshot open."""


class WriterCommands:
    """The queue of commands, and what the writer does for each."""

    def __init__(
        self,
        settings: Settings,
        replica: Replica,
        router: Router,
        wake: Callable[[], None],
        background: Background | None = None,
    ) -> None:
        self._db, self._replica, self._router, self._wake = settings.db, replica, router, wake
        self._looked_ms = -LOOK_EVERY_MS  # the first turn looks
        self._found_wrong: Counter[Stream] = Counter()
        self._prove_again_ms: int | None = None
        self._commands: queue.SimpleQueue[WriterCommand] = queue.SimpleQueue()
        self._runner = JobRunner(settings, self.submit, background or Background())

    def begin(self) -> None:
        """Start the schedule."""
        self._runner.start()

    def stop(self) -> None:
        self._runner.stop()

    def submit(self, command: WriterCommand) -> None:
        """Have a command carried out in the writer's next turn."""
        self._commands.put(command)
        self._wake()

    def obey(self, mono_ms: int) -> None:
        """Carry out what was asked for meanwhile. Raises ReplicaDamaged if a proof found the file damaged."""
        if mono_ms - self._looked_ms >= LOOK_EVERY_MS:
            self._looked_ms = mono_ms
            self._rebuild_as_asked(mono_ms)
        if self._prove_again_ms is not None and mono_ms >= self._prove_again_ms:
            self._prove_again_ms = None
            self._carry_out(Verify(), mono_ms)
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            self._carry_out(command, mono_ms)

    def _carry_out(self, command: WriterCommand, mono_ms: int) -> None:
        match command:
            case Checkpoint():
                self._checkpoint()
            case Verify():
                self._runner.verify({stream: follower.life for stream, follower in self._router.followers.items()})
                self._router.prove_search()
            case Verified():
                self._note_verified(command, mono_ms)
            case Damaged(error) | SchedulerFailed(error):
                raise error
            case _:
                self._runner.run(command)

    def _note_verified(self, found: Verified, mono_ms: int) -> None:
        """Write down what a scan found, unless the rows were replaced meanwhile; rebuild a stream that differs."""
        follower = self._router.followers[found.stream]
        current = follower.life == found.life
        if current:
            self._replica.set_verified(found.stream, ok=found.ok, at_ms=time.time_ns() // 1_000_000)
        if current and found.ok:
            del self._found_wrong[found.stream]
        elif current:
            follower.rebuild("scan", mono_ms)
            self._found_wrong[found.stream] += 1
        if times := self._found_wrong[found.stream]:
            self._prove_again_ms = mono_ms + min(PROVE_AGAIN_MS << min(times - 1, 16), PROVE_AGAIN_MS_MAX)

    def _rebuild_as_asked(self, mono_ms: int) -> None:
        wanted = rebuild_request.asked(self._db)
        for stream, follower in self._router.followers.items():
            if stream.name in wanted:
                follower.rebuild(ASKED, mono_ms)
        if wanted:
            rebuild_request.forget(self._db)

    def _checkpoint(self) -> None:
        at_ms, began_ns = time.time_ns() // 1_000_000, time.monotonic_ns()
        self._replica.checkpoint()
        wal_bytes = self._replica.wal_bytes()
        if wal_bytes > WAL_BYTES_GROWN:
            log.warning("log.grown", wal_bytes=wal_bytes)
        took_ms = (time.monotonic_ns() - began_ns) // 1_000_000
        self._runner.note(job_times.CHECKPOINT, at_ms, took_ms, f"a log of {wal_bytes} bytes")
