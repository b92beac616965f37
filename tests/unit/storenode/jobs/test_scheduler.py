"""The schedule: what was due is done once, and no jump of the clock stops it or makes it run wild."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from storenode.core.job_times import ACTIVATE, CHECKPOINT, VERIFY, Rhythm
from storenode.errors import OutboxDamaged
from storenode.jobs.background import Background
from storenode.jobs.history import JobHistory, read
from storenode.jobs.scheduler import Checkpoint, FindPriceChanges, Job, Scheduler, SchedulerFailed, Verify

DAY_S, HOUR_MS = 86_400, 3_600_000
WAIT_S = 20.0


class Quick(Rhythm):
    """A second of it takes a fifth."""

    def next_ms(self, after_ms: int) -> int:
        return self.newest_ms(after_ms) + self.period_s * 200

    def newest_ms(self, at_ms: int) -> int:
        return at_ms // (self.period_s * 200) * self.period_s * 200


class Clock:
    """Real time, plus what it was set by."""

    def __init__(self) -> None:
        self.set_by_ms = 0

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.set_by_ms


class Daemon:
    """A schedule and the queue that it fills."""

    def __init__(self, directory: Path, rhythms: Mapping[str, Rhythm]) -> None:
        self.clock, self.history = Clock(), JobHistory(directory / "outbox.db")
        self.asked: queue.SimpleQueue[Job | SchedulerFailed] = queue.SimpleQueue()
        self.scheduler = Scheduler(rhythms, self.history, self.asked.put, wall_ms=self.clock.wall_ms, look_s=0.02)

    def next(self) -> Job | SchedulerFailed:
        return self.asked.get(timeout=WAIT_S)

    def settle(self) -> list[Job | SchedulerFailed]:
        """All that is asked for until a job of this moment is done: what was due before it came before it."""
        done = []
        self.scheduler.at(CHECKPOINT, 0)
        while (command := self.next()) != Checkpoint():
            done.append(command)
        return done


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Callable[[Mapping[str, Rhythm]], Daemon]]:
    made: list[Daemon] = []

    def make(rhythms: Mapping[str, Rhythm]) -> Daemon:
        made.append(Daemon(tmp_path, rhythms))
        return made[-1]

    yield make
    for daemon in made:
        daemon.scheduler.stop()


def nightly(wall_ms: int, hours_ago: int) -> Rhythm:
    """Due each day, the last time so many hours ago."""
    return Rhythm(DAY_S, (wall_ms // 1000 - hours_ago * 3_600) % DAY_S)


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_new_store_owes_nothing_and_a_night_missed_is_made_up_for_once(
    daemons: Callable[[Mapping[str, Rhythm]], Daemon],
) -> None:
    wall_ms = time.time_ns() // 1_000_000
    rhythms = {VERIFY: nightly(wall_ms, 5)}
    first = daemons(rhythms)
    first.scheduler.start()
    until(lambda: first.scheduler.is_running)
    assert first.settle() == []
    first.scheduler.stop()
    first.history.note(VERIFY, wall_ms - 3 * DAY_S * 1000, 7, "well", ok=True)
    second = daemons(rhythms)
    second.scheduler.start()
    assert second.next() == Verify()
    assert second.settle() == []
    second.scheduler.stop()
    second.history.note(VERIFY, time.time_ns() // 1_000_000, 7, "well", ok=True)
    third = daemons(rhythms)
    third.scheduler.start()
    until(lambda: third.scheduler.is_running)
    assert third.settle() == []


def test_a_short_rhythm_goes_on(daemons: Callable[[Mapping[str, Rhythm]], Daemon]) -> None:
    daemon = daemons({ACTIVATE: Quick(1)})
    daemon.scheduler.start()
    assert [daemon.next() for _ in range(3)] == [FindPriceChanges()] * 3


@pytest.mark.parametrize("jump_ms", [-HOUR_MS, HOUR_MS, 365 * 24 * HOUR_MS, -50 * 365 * 24 * HOUR_MS])
def test_after_a_jump_of_the_clock_jobs_go_on_and_nothing_is_done_a_thousand_times(
    daemons: Callable[[Mapping[str, Rhythm]], Daemon], jump_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """APScheduler sees the jump too: left to itself it sleeps on, or runs each second of a year."""
    daemon = daemons({ACTIVATE: Quick(1)})
    set_clock = daemon.clock

    class Set(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(milliseconds=set_clock.set_by_ms)

    monkeypatch.setattr("apscheduler.schedulers.base.datetime", Set)
    monkeypatch.setattr("storenode.jobs.scheduler.datetime", Set)
    daemon.scheduler.start()
    daemon.next()
    daemon.clock.set_by_ms = jump_ms
    before = 0
    while (command := daemon.next()) != FindPriceChanges(all_prices=True):
        assert command == FindPriceChanges()
        before += 1
        assert before < 60
    assert [daemon.next() for _ in range(2)] == [FindPriceChanges()] * 2


def test_a_night_that_the_clock_jumped_over_is_made_up_for_and_one_it_came_back_to_is_not_done_twice(
    daemons: Callable[[Mapping[str, Rhythm]], Daemon],
) -> None:
    wall_ms = time.time_ns() // 1_000_000
    daemon = daemons({VERIFY: nightly(wall_ms, -6), ACTIVATE: Rhythm(10 * DAY_S, 5 * DAY_S)})
    daemon.scheduler.start()
    until(lambda: daemon.scheduler.is_running)
    daemon.clock.set_by_ms = 9 * HOUR_MS
    assert [daemon.next(), daemon.next()] == [Verify(), FindPriceChanges(all_prices=True)]
    daemon.clock.set_by_ms = 0
    assert daemon.next() == FindPriceChanges(all_prices=True)
    assert daemon.settle() == []


def test_an_instant_asked_for_is_kept_and_replaces_the_one_before(
    daemons: Callable[[Mapping[str, Rhythm]], Daemon],
) -> None:
    daemon = daemons({CHECKPOINT: Rhythm(10 * DAY_S, 5 * DAY_S)})
    daemon.scheduler.start()
    until(lambda: daemon.scheduler.is_running)
    daemon.scheduler.at(ACTIVATE, daemon.clock.wall_ms() + HOUR_MS)
    daemon.scheduler.at(ACTIVATE, daemon.clock.wall_ms() + 50)
    assert daemon.next() == FindPriceChanges()
    assert daemon.settle() == []


def test_a_history_of_jobs_that_cannot_be_read_stops_no_job(
    daemons: Callable[[Mapping[str, Rhythm]], Daemon], tmp_path: Path
) -> None:
    (tmp_path / "outbox.db").write_bytes(b"no database " * 1_000)
    daemon = daemons({ACTIVATE: Quick(1)})
    daemon.scheduler.start()
    assert [daemon.next(), daemon.next()] == [FindPriceChanges()] * 2
    with pytest.raises(OutboxDamaged):
        read(daemon.history.path)


def test_a_bug_in_the_schedule_is_the_daemons_end(daemons: Callable[[Mapping[str, Rhythm]], Daemon]) -> None:
    daemon = daemons({VERIFY: Rhythm(0)})
    daemon.scheduler.start()
    found = daemon.next()
    assert isinstance(found, SchedulerFailed)
    assert isinstance(found.error, ZeroDivisionError)


def test_the_history_of_jobs_keeps_the_last_run_and_since_when_there_is_the_job(tmp_path: Path) -> None:
    history = JobHistory(tmp_path / "outbox.db")
    history.begin(["verify", "backup"], 5)
    history.note("verify", 10, 3, "x" * 1_000, ok=False, next_at_ms=99)
    runs = history.begin(["verify", "backup"], 50)
    found = runs["verify"]
    assert (found.since_ms, found.last_at_ms, found.took_ms, found.ok, found.next_at_ms) == (5, 10, 3, False, 99)
    assert (len(found.detail or ""), found.reference_ms) == (300, 10)
    assert (runs["backup"].last_at_ms, runs["backup"].reference_ms) == (None, 5)
    assert read(history.path) == runs
    assert read(tmp_path / "none.db") == {}


def test_background_work_is_done_once_at_a_time_and_once_more_if_asked_meanwhile() -> None:
    background, begun, go, done = Background(), threading.Event(), threading.Event(), queue.SimpleQueue[str]()

    def first() -> None:
        begun.set()
        go.wait(WAIT_S)
        done.put("first")

    background.start("a", first)
    begun.wait(WAIT_S)
    for number in range(5):
        background.start("a", lambda number=number: done.put(f"again {number}"))  # type: ignore[misc]
    background.start("b", lambda: done.put("b"))
    assert done.get(timeout=WAIT_S) == "b", "another kind waits for nobody"
    go.set()
    assert [done.get(timeout=WAIT_S), done.get(timeout=WAIT_S)] == ["first", "again 4"]
    until(lambda: "a" not in [thread.name for thread in threading.enumerate()])
    background.start("a", lambda: done.put("later"))
    assert done.get(timeout=WAIT_S) == "later"
