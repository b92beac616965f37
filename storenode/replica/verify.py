"""Proving the replica aside: the file's own integrity, then each stream's digest; the results become commands.

Runs beside the writer, on read-only connections. What it finds wrong, the writer heals: a damaged file is set
aside, a stream whose rows are not HQ's is fetched anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from storelink.contract.streams import Stream
from storelink.host.logs import get_logger
from storenode.errors import ReplicaDamaged, StorenodeError
from storenode.replica.queries import check_file, scan

log = get_logger()


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


def prove(db: Path, lives: Mapping[Stream, int], submit: Callable[[Result], None]) -> StorenodeError | None:
    """Check the file, then scan every stream; returns what kept it from its end, which is tried the next time."""
    try:
        check_file(db)
        for stream, life in lives.items():
            found = scan(db, stream)
            (log.info if found.ok else log.error)("replica.scanned", stream=str(stream), ok=found.ok, rows=found.rows)
            if found.epoch is not None:
                submit(Verified(stream, found.ok, life))
    except ReplicaDamaged as error:
        submit(Damaged(error))
        return error
    except StorenodeError as error:
        return error
    return None
