"""What each job of the store does, in the background of the writer, on connections of its own.

Whatever goes wrong with a job is logged and written into the history of jobs, and stops nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from storelink.contract.streams import Stream
from storelink.host.logs import get_logger
from storelink.host.process import give_back_memory
from storenode.core import job_times
from storenode.errors import StorenodeError
from storenode.jobs import backup, price_changes
from storenode.jobs.background import Background
from storenode.jobs.history import JobHistory
from storenode.jobs.notifier import PriceChangeNotifier
from storenode.jobs.price_changes import PriceChanges, price_changes_path
from storenode.jobs.prune import prune
from storenode.jobs.scheduler import BackUp, FindPriceChanges, Job, Prune, Scheduler, SchedulerFailed
from storenode.replica.verify import Result, Verified, prove

if TYPE_CHECKING:
    from storenode.config import Settings

log = get_logger()

PAUSE_MS = 100
PASSED_MS_MAX = 2_000
"""An instant that has passed since the look is made up for at once; one longer ago waits for the next look."""


class JobRunner:
    """Built and started by the writer's thread; what it starts runs in threads of its own."""

    def __init__(
        self, settings: Settings, submit: Callable[[Job | SchedulerFailed | Result], None], background: Background
    ) -> None:
        self._settings, self._submit = settings, submit
        self._background = background
        self._history = JobHistory(settings.outbox_path)
        self._scheduler = Scheduler(settings.rhythms, self._history, submit, at_start=(job_times.VERIFY,))
        self._stopping = self._all_prices = False
        self._changes_path = price_changes_path(settings.db)
        self._notifier: PriceChangeNotifier | None = None
        if settings.tells_prices:
            self._notifier = PriceChangeNotifier(
                settings.store_id,
                PriceChanges(self._changes_path, settings.db),
                (settings.outbox_path, settings.outbox_max_bytes),
                hook=settings.on_price_change,
                hq=settings.tell_activations,
            )

    def start(self) -> None:
        """Start the schedule."""
        if self._notifier is None:
            # Nobody is notified now; a later notifier must not begin with the changes from before.
            price_changes.forget(self._changes_path)
        self._scheduler.start()

    def stop(self) -> None:
        """Stop without waiting: nothing that a job does is lost by dying."""
        self._stopping = True
        self._scheduler.stop()

    def run(self, job: Job) -> None:
        """Start a job; returns at once."""
        match job:
            case BackUp():
                self._start(job_times.BACKUP, self._back_up)
            case Prune():
                self._start(job_times.PRUNE, self._prune)
            case FindPriceChanges(all_prices):
                self._all_prices = self._all_prices or all_prices
                self._background.start(job_times.ACTIVATE, self._notify)
            case _:
                raise ValueError(job)

    def verify(self, lives: Mapping[Stream, int]) -> None:
        """Start the proof; `lives`: see storenode/replica/verify.py."""
        self._start(job_times.VERIFY, lambda: self._verify(lives))

    def note(self, name: str, at_ms: int, took_ms: int, detail: str) -> None:
        """Write down what the writer itself has done; its own thread does not wait for the disk."""
        self._background.start(f"note-{name}", lambda: self._write_down(name, at_ms, took_ms, detail, ok=True))

    def _start(self, name: str, work: Callable[[], str]) -> None:
        def work_and_give_back() -> None:
            self._do(name, work)
            give_back_memory()

        self._background.start(name, work_and_give_back)

    def _do(self, name: str, work: Callable[[], str], next_at: Callable[[], int | None] = lambda: None) -> None:
        """Do a job and write down how it went; a bug in it must stop nothing else."""
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
            self._history.note(name, at_ms, took_ms, detail, ok=ok, next_at_ms=next_at_ms)
        except StorenodeError as error:
            log.warning("job_history.failed", error=str(error))

    def _notify(self) -> None:
        """Find the prices that changed, then notify HQ and the hook."""
        notifier = self._notifier
        if notifier is None:
            return
        found_next_ms: int | None = None

        def find_changes() -> str:
            nonlocal found_next_ms
            began_s = time.time_ns() // 1_000_000_000
            all_prices, self._all_prices = self._all_prices, False
            found = notifier.find_changes(all_prices=all_prices)
            if found.next_s is not None:
                # What prices go by may be another clock than the machine's.
                found_next_ms = (began_s + found.next_s - found.now_s) * 1_000
            notifier.notify_hq()
            return "waits for the first complete replica" if found.waits else f"{found.changed} prices changed"

        self._do(job_times.ACTIVATE, find_changes, lambda: found_next_ms)
        wall_ms = time.time_ns() // 1_000_000
        if found_next_ms is not None and found_next_ms > wall_ms - PASSED_MS_MAX:
            self._scheduler.at(job_times.ACTIVATE, max(found_next_ms, wall_ms + PAUSE_MS))
        if notifier.may_try_hook:
            self._background.start(job_times.HOOK, lambda: self._notify_hook(notifier))

    def _notify_hook(self, notifier: PriceChangeNotifier) -> None:
        try:
            has_pending = notifier.has_pending()
        except StorenodeError as error:
            log.error("job.failed", job=job_times.HOOK, error=str(error))
            return
        if has_pending:
            self._do(job_times.HOOK, lambda: f"{notifier.notify_hook()} prices delivered")

    def _verify(self, lives: Mapping[Stream, int]) -> str:
        differ: list[str] = []

        def report(result: Result) -> None:
            self._submit(result)
            if isinstance(result, Verified) and not result.ok:
                differ.append(str(result.stream))

        failed = prove(self._settings.db, lives, report)
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
        if self._notifier is not None:
            self.run(FindPriceChanges(all_prices=True))  # once a night every price is looked at, whatever was missed
        return f"{removed} files removed"
