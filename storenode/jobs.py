"""The store's schedule, and the one home of APScheduler. Jobs only put commands on the writer's queue."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from contract.streams import Stream
from storenode.errors import StorenodeError
from storenode.readers import scan

log = structlog.get_logger()

CHECKPOINT_EVERY_S = 300
VERIFY_HOUR_UTC = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Move the write-ahead log into the database file."""


@dataclass(frozen=True, slots=True)
class Verify:
    """Scan every stream and compare with the digest that HQ announced."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A scan's result."""

    stream: Stream
    ok: bool


Command = Checkpoint | Verify | Verified


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


def scan_aside(db: Path, streams: tuple[Stream, ...], submit: Callable[[Command], None]) -> None:
    """Scan the replica in a thread of its own, on a read-only connection; each result becomes a command."""

    def work() -> None:
        for stream in streams:
            try:
                found = scan(db, stream)
            except StorenodeError as error:
                log.error("scan.failed", stream=str(stream), error=str(error))
                continue
            (log.info if found.ok else log.error)("replica.scanned", stream=str(stream), ok=found.ok, rows=found.rows)
            submit(Verified(stream, found.ok))

    threading.Thread(target=work, name="scan", daemon=True).start()
