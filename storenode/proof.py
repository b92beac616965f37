"""Proving the replica aside: the file's own integrity, then each stream's digest; the results become commands.

Runs in a thread of its own, on read-only connections. What it finds wrong, the writer heals: a damaged file is set
aside, a stream whose rows are not HQ's is fetched anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from contract.streams import Stream
from storenode.errors import ReplicaDamaged, StorenodeError
from storenode.readers import check_file, scan

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Verified:
    """A scan's result; `life`: how often the stream had been rebuilt when the scan began."""

    stream: Stream
    ok: bool
    life: int


@dataclass(frozen=True, slots=True)
class Damaged:
    """The file itself is not sound."""

    error: ReplicaDamaged


Result = Verified | Damaged


def prove_aside(db: Path, lives: Mapping[Stream, int], submit: Callable[[Result], None]) -> None:
    """Prove the replica in a thread of its own; each result is submitted."""
    threading.Thread(target=prove, args=(db, lives, submit), name="proof", daemon=True).start()


def prove(db: Path, lives: Mapping[Stream, int], submit: Callable[[Result], None]) -> None:
    """Check the file, then scan every stream; what keeps a scan from its end is logged and tried the next time."""
    try:
        check_file(db)
        for stream, life in lives.items():
            found = scan(db, stream)
            (log.info if found.ok else log.error)("replica.scanned", stream=str(stream), ok=found.ok, rows=found.rows)
            if found.epoch is not None:
                submit(Verified(stream, found.ok, life))
    except ReplicaDamaged as error:
        submit(Damaged(error))
    except StorenodeError as error:
        log.error("scan.failed", error=str(error))
