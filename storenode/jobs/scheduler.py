"""The store's schedule, and the one home of APScheduler. A job that is due only puts a command on the writer's queue.

APScheduler is given single instants, one a job, and this file computes the next: after a clock that jumped ahead,
APScheduler would run through a series of its own instant by instant. While APScheduler sleeps towards an instant, it
does not notice that the clock was set back; so a thread that runs on monotonic time looks for jumps and plans all jobs
anew, which wakes it. What was due while the daemon was down, or while the clock jumped over it, is done once: the
history of jobs knows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from storelink.host.logs import get_logger
from storenode.core import job_times
from storenode.core.job_times import ClockWatch, Rhythm
from storenode.errors import StorenodeError

if TYPE_CHECKING:
    from storenode.jobs.history import JobHistory

log = get_logger()

CLOCK_LOOK_S = 5.0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Move the write-ahead log into the database file."""


@dataclass(frozen=True, slots=True)
class Verify:
    """Scan every stream and compare with the digest that HQ announced."""


@dataclass(frozen=True, slots=True)
class FindPriceChanges:
    """Look for prices that changed; `all_prices`: look at every price, because the clock was set."""

    all_prices: bool = False


@dataclass(frozen=True, slots=True)
class BackUp:
    """Make the nightly backup."""


@dataclass(frozen=True, slots=True)
class Prune:
    """Remove what is kept for a time only."""


Job = Checkpoint | Verify | FindPriceChanges | BackUp | Prune


@dataclass(frozen=True, slots=True)
class SchedulerFailed:
    """The schedule has stopped, by a bug; the daemon must not go on without it."""

    error: Exception


JOBS: Mapping[str, Job] = {
    job_times.CHECKPOINT: Checkpoint(),
    job_times.VERIFY: Verify(),
    job_times.ACTIVATE: FindPriceChanges(),
    job_times.BACKUP: BackUp(),
    job_times.PRUNE: Prune(),
}


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _mono_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Scheduler:
    """Runs the schedule; all times UTC. `at` may be called by any thread.

    `at_start`: the jobs that are done at every start, whether or not they were missed.
    """

    def __init__(
        self,
        rhythms: Mapping[str, Rhythm],
        history: JobHistory,
        submit: Callable[[Job | SchedulerFailed], None],
        *,
        at_start: Collection[str] = (),
        wall_ms: Callable[[], int] = _wall_ms,
        mono_ms: Callable[[], int] = _mono_ms,
        look_s: float = CLOCK_LOOK_S,
    ) -> None:
        self._rhythms, self._history, self._submit, self._at_start = rhythms, history, submit, at_start
        self._wall_ms, self._mono_ms, self._look_s = wall_ms, mono_ms, look_s
        self._last_ms: dict[str, int] = {}
        self._lock = threading.Lock()
        self._scheduler: Any = None
        self._stopping = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="scheduler", daemon=True).start()

    @property
    def is_running(self) -> bool:
        """Whether jobs are planned; soon after `start`, until `stop`. Only then `at` has an effect."""
        with self._lock:
            return self._scheduler is not None

    def stop(self) -> None:
        """Stop without waiting for anything."""
        self._stopping.set()
        with self._lock:
            if self._scheduler is not None:
                self._scheduler.pause()  # a shutdown kills its thread with an error if a job is due just then
                self._scheduler = None

    def at(self, name: str, instant_ms: int) -> None:
        """Have a job done at this instant too; one that was asked for before is replaced."""
        with self._lock:
            self._add(f"{name}.at", instant_ms, lambda: self._submit(JOBS[name]))

    def _run(self) -> None:
        try:
            watch = ClockWatch(self._wall_ms(), self._mono_ms())
            self._last_ms = self._known()
            with self._lock:
                if not self._stopping.is_set():
                    self._scheduler = _started()
            self._plan(self._at_start)
            while not self._stopping.wait(self._look_s):
                jump_ms = watch.jump_ms(self._wall_ms(), self._mono_ms())
                if jump_ms:
                    log.warning("clock.jumped", by_s=jump_ms // 1000)
                    # What was last done "in the future" was done before the clock was set back.
                    wall_ms = self._wall_ms()
                    self._last_ms = {name: min(last_ms, wall_ms) for name, last_ms in self._last_ms.items()}
                    self._plan()
                    if job_times.ACTIVATE in self._rhythms:
                        self._submit(FindPriceChanges(all_prices=True))
        except Exception as error:  # noqa: BLE001 - the top of the thread: the daemon stops, and logs it
            self._submit(SchedulerFailed(error))

    def _known(self) -> dict[str, int]:
        """When each job was last done, or first planned."""
        wall_ms = self._wall_ms()
        try:
            runs = self._history.begin(self._rhythms, wall_ms)
        except StorenodeError as error:
            log.warning("job_history.failed", error=str(error))
            return dict.fromkeys(self._rhythms, wall_ms)
        return {name: runs[name].reference_ms for name in self._rhythms}

    def _plan(self, also: Collection[str] = ()) -> None:
        """Ask for what was missed at once, and plan the next instant of every job."""
        wall_ms = self._wall_ms()
        missed = [n for n, rhythm in self._rhythms.items() if n in also or rhythm.is_owed(self._last_ms[n], wall_ms)]
        with self._lock:
            for name in self._rhythms:
                self._plan_next(name, wall_ms)
        self._ask(missed, wall_ms)

    def _ask(self, names: Iterable[str], wall_ms: int) -> None:
        for name in names:
            self._last_ms[name] = wall_ms
            self._submit(JOBS[name])

    def _plan_next(self, name: str, after_ms: int) -> None:
        """Under the lock."""
        due_ms = self._rhythms[name].next_ms(after_ms)
        self._add(name, due_ms, lambda: self._fire(name, due_ms))

    def _fire(self, name: str, due_ms: int) -> None:
        """In a thread of the scheduler."""
        wall_ms = max(self._wall_ms(), due_ms)
        self._ask([name], wall_ms)
        with self._lock:
            self._plan_next(name, wall_ms)

    def _add(self, ident: str, instant_ms: int, work: Callable[[], None]) -> None:
        """Under the lock. A delay from now on the system's clock, so that tests may have a clock of their own."""
        if self._scheduler is not None:
            at = datetime.now(UTC) + timedelta(milliseconds=max(instant_ms - self._wall_ms(), 0))
            self._scheduler.add_job(work, "date", id=ident, run_date=at, replace_existing=True)


def _started() -> Any:
    # Imported here: it takes longer than connecting, and a schedule is not what a starting store waits for.
    from apscheduler.schedulers.background import BackgroundScheduler

    # A late job runs once instead of never (misfire). A job only asks, so one that is still asking when the next of
    # its name is due is no reason to skip that (max_instances).
    scheduler = BackgroundScheduler(
        timezone="UTC",
        executors={"default": {"type": "threadpool", "max_workers": 1}},
        job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1_000},
        daemon=True,
    )
    scheduler.start()
    return scheduler
