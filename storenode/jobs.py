"""The store's schedule, and the one home of APScheduler. Jobs only put commands on the writer's queue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

CHECKPOINT_EVERY_S = 300
VERIFY_HOUR_UTC = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Move the write-ahead log into the database file."""


@dataclass(frozen=True, slots=True)
class Verify:
    """Scan every stream and compare with the digest that HQ announced."""


Command = Checkpoint | Verify


class Jobs:
    """Runs the schedule; all times UTC."""

    def __init__(self, submit: Callable[[Command], None]) -> None:
        # Imported here: it takes longer than connecting, and a schedule is not what a starting store waits for.
        from apscheduler.schedulers.background import BackgroundScheduler

        # A late job runs once instead of never (misfire), a missed series once instead of often (coalesce).
        self._scheduler = BackgroundScheduler(
            timezone="UTC", job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )
        self._scheduler.add_job(submit, "interval", (Checkpoint(),), id="checkpoint", seconds=CHECKPOINT_EVERY_S)
        self._scheduler.add_job(
            submit, "cron", (Verify(),), id="verify", hour=VERIFY_HOUR_UTC, minute=30, jitter=1_800
        )

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        """Stop without waiting for a running job."""
        self._scheduler.shutdown(wait=False)
