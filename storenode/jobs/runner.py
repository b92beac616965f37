"""The store's chores: what each job does, beside the writer, on read-only connections of its own.

Whatever goes wrong with a chore is logged and written into the log of jobs, and stops nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from storelink.contract.streams import Stream
from storelink.host.logs import get_logger
from storelink.host.process import give_back_memory
from storenode.core import job_times
from storenode.errors import StorenodeError
from storenode.jobs import backup
from storenode.jobs.background import Background
from storenode.jobs.history import JobHistory
from storenode.jobs.notifier import PriceChangeNotifier
from storenode.jobs.price_changes import PriceChanges
from storenode.jobs.price_changes_file import forget
from storenode.jobs.prune import prune
from storenode.jobs.scheduler import Activate, BackUp, Command, Jobs, Prune
from storenode.replica.verify import Result, Verified, prove

if TYPE_CHECKING:
    from storenode.config import Settings

log = get_logger()

PAUSE_MS = 100
PASSED_MS_MAX = 2_000
"""An instant that has passed since the look is made up for at once; one longer ago waits for the next look."""


class JobRunner:
    """Built and begun by the writer's thread; what it starts runs in threads of its own."""

    def __init__(self, settings: Settings, submit: Callable[[Command | Result], None]) -> None:
        self._settings, self._submit = settings, submit
        self._aside = Background()
        self._joblog = JobHistory(settings.outbox_path)
        self._jobs = Jobs(settings.rhythms, self._joblog, submit, at_start=(job_times.VERIFY,))
        self._stopping = self._wide = False
        path = told_path(settings.db)
        self._activations: PriceChangeNotifier | None = None
        if settings.tells_prices:
            self._activations = PriceChangeNotifier(
                settings.store_id,
                PriceChanges(path, settings.db),
                (settings.outbox_path, settings.outbox_max_bytes),
                hook=settings.on_price_change,
                upstream=settings.tell_activations,
            )
        else:
            forget(path)  # what changes while nobody is told is not owed to anybody later

    def begin(self) -> None:
        self._jobs.start()

    def stop(self) -> None:
        """Stop without waiting: nothing that a chore does is lost by dying."""
        self._stopping = True
        self._jobs.stop()

    def do(self, command: Command) -> None:
        """Start a chore; returns at once."""
        match command:
            case BackUp():
                self._start(job_times.BACKUP, self._back_up)
            case Prune():
                self._start(job_times.PRUNE, self._prune)
            case Activate(wide):
                self._wide = self._wide or wide
                self._aside.start(job_times.ACTIVATE, self._activate)
            case _:
                raise ValueError(command)

    def verify(self, lives: Mapping[Stream, int]) -> None:
        """Start the proof; `lives`: see storenode/replica/verify.py."""
        self._start(job_times.VERIFY, lambda: self._verify(lives))

    def note(self, name: str, at_ms: int, took_ms: int, detail: str) -> None:
        """Write down what the writer itself has done; its own thread does not wait for the disk."""
        self._aside.start(f"note-{name}", lambda: self._write_down(name, at_ms, took_ms, detail, ok=True))

    def _start(self, name: str, work: Callable[[], str]) -> None:
        def whole() -> None:
            self._done(name, work)
            give_back_memory()

        self._aside.start(name, whole)

    def _done(self, name: str, work: Callable[[], str], next_at: Callable[[], int | None] = lambda: None) -> None:
        """Do a chore and write down how it went; a bug in it must stop nothing else."""
        at_ms, began_ns, ok = time.time_ns() // 1_000_000, time.monotonic_ns(), False
        try:
            detail = work()
            ok = True
        except StorenodeError as error:
            detail = str(error)
            log.error("job.failed", job=name, error=detail)
        except Exception as error:
            detail = f"{type(error).__name__}: {error}"
            log.exception("job.failed", job=name)
        took_ms = (time.monotonic_ns() - began_ns) // 1_000_000
        if not self._stopping:
            self._write_down(name, at_ms, took_ms, detail, ok=ok, next_at_ms=next_at())

    def _write_down(
        self, name: str, at_ms: int, took_ms: int, detail: str, *, ok: bool, next_at_ms: int | None = None
    ) -> None:
        try:
            self._joblog.note(name, at_ms, took_ms, detail, ok=ok, next_at_ms=next_at_ms)
        except StorenodeError as error:
            log.warning("joblog.failed", error=str(error))

    def _activate(self) -> None:
        activations = self._activations
        if activations is None:
            return
        found_next_ms: int | None = None

        def look() -> str:
            nonlocal found_next_ms
            began_s = time.time_ns() // 1_000_000_000
            wide, self._wide = self._wide, False
            found = activations.look(wide=wide)
            if found.next_s is not None:
                # What prices go by may be another clock than the machine's.
                found_next_ms = (began_s + found.next_s - found.now_s) * 1_000
            activations.tell_hq()
            return "waits for the first complete replica" if found.waits else f"{found.changed} prices changed"

        self._done(job_times.ACTIVATE, look, lambda: found_next_ms)
        now_ms = time.time_ns() // 1_000_000
        if found_next_ms is not None and found_next_ms > now_ms - PASSED_MS_MAX:
            self._jobs.at(job_times.ACTIVATE, max(found_next_ms, now_ms + PAUSE_MS))
        if activations.is_hook_due:
            self._aside.start(job_times.HOOK, lambda: self._tell_hook(activations))

    def _tell_hook(self, activations: PriceChangeNotifier) -> None:
        try:
            owed = activations.is_owed
        except StorenodeError as error:
            log.error("job.failed", job=job_times.HOOK, error=str(error))
            return
        if owed:
            self._done(job_times.HOOK, lambda: f"{activations.tell_hook()} prices told")

    def _verify(self, lives: Mapping[Stream, int]) -> str:
        differ: list[str] = []

        def heard(result: Result) -> None:
            self._submit(result)
            if isinstance(result, Verified) and not result.ok:
                differ.append(str(result.stream))

        failed = prove(self._settings.db, lives, heard)
        if failed is not None:
            raise failed
        return f"not HQ's: {', '.join(differ)}; fetched anew" if differ else f"{len(lives)} streams looked at"

    def _back_up(self) -> str:
        settings = self._settings
        assert settings.backup_dir is not None
        made = backup.make(
            settings.db,
            settings.registry,
            settings.backup_dir,
            settings.store_id,
            settings.backup_keep,
            datetime.now(UTC),
            go_on=lambda: not self._stopping,
        )
        log.info("backup.made", file=made.path.name, size_bytes=made.size_bytes, dropped=len(made.dropped))
        return f"{made.path.name}, {made.size_bytes} bytes"

    def _prune(self) -> str:
        settings = self._settings
        removed = prune(settings.db, settings.backup_dir, datetime.now(UTC))
        if self._activations is not None:
            self.do(Activate(wide=True))  # once a night every price is looked at, whatever was missed
        return f"{removed} files removed"


def told_path(db: Path) -> Path:
    """Beside the replica, as its lock and its spool are."""
    return db.with_name(f"{db.name}.told")
