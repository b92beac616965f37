"""The act that power cuts end: a store and its HQ write to everything that they keep on a disk."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from hq.collect.inbox import StoreInbox
from hq.core.changes import Change
from hq.errors import HqError
from hq.master.store import Master
from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.streams import Stream
from storelink.contract.upstream import OutboxBatch
from storenode.errors import StorenodeError
from storenode.outbox.store import Outbox
from storenode.replica.writer import Replica
from tests.faults.acts.stage import Say
from tests.faults.acts.stories import AT_MS, Story, story
from tests.oracle.history import digest_of

STREAMS = (Stream.parse("product/all", BUILT_IN), Stream.parse("price/all", BUILT_IN))
LONG = 400
"""Change sets of the stories that a power cut ends somewhere."""


def long_stories() -> list[Story]:
    return [story(str(s), 7, entities=16, sets=LONG) for s in STREAMS]


def selling(directory: Path, say: Say, *, life: int, synchronous: str = "") -> None:
    """
    A till's outbox, HQ's inbox and master, and a replica, until the disk is gone.

    Args:
        synchronous: planted fault: what the outbox, inbox and master are set to instead of FULL.
    """
    told = {s.name: s for s in long_stories()}
    if synchronous:
        _set_full_to(synchronous)
    try:
        outbox, inbox = Outbox(directory / "outbox.db"), StoreInbox(directory / "hq.inbox.db")
        hq, replica = (
            Master(directory / "hq.db", BUILT_IN, lambda: 0),
            Replica.open(directory / "replica.db", ("all",), BUILT_IN),
        )
        hq.create(AT_MS)
        for number in range(LONG):
            outbox.append("t", {"life": life, "number": number}, AT_MS)
            say(acked=[life, number])
            if number % 3 == 0:
                _carry(outbox, inbox)
            if number % 3 == 1:
                _commit_next(hq, told["price/all"], say)
            if number % 3 == 2:
                _apply_next(replica, told["product/all"], say)
            if number % 8 == 7:
                outbox.checkpoint(0)
                replica.checkpoint()
                inbox.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
                _checkpoint(directory / "hq.db")
    except (StorenodeError, HqError) as error:
        say(error=type(error).__name__, text=str(error))
    except sqlite3.OperationalError as error:
        say(error="checkpoint", text=str(error))
    os._exit(0)


def _set_full_to(synchronous: str) -> None:
    """Whoever asks SQLite for `synchronous=FULL` gets less."""

    class Careless(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            asked = sql.replace(" ", "").upper()
            return super().execute(
                f"PRAGMA synchronous={synchronous}" if asked == "PRAGMASYNCHRONOUS=FULL" else sql, *parameters
            )

    vars(sqlite3)["connect"] = partial(sqlite3.connect, factory=Careless)


def _checkpoint(path: Path) -> None:
    """What `hq run` does when the log of the master is long."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _carry(outbox: Outbox, inbox: StoreInbox) -> None:
    """The way of a batch: onto HQ's disk, and only then out of the outbox."""
    standing = outbox.standing()
    after = inbox.through("s", standing.epoch)
    entries, _ = outbox.after(max(after, standing.acked_seq), 100)
    if entries:
        batch = OutboxBatch("s", standing.epoch, entries[0].seq, entries[-1].seq, standing.acked_seq, entries)
        with inbox.transaction():
            inbox.put(batch, after, AT_MS)
    outbox.remove_acked(inbox.through("s", standing.epoch), ())


def _commit_next(hq: Master, told: Story, say: Say) -> None:
    stream = Stream.parse(told.name, BUILT_IN)
    row = hq.stream(stream)
    assert row is not None
    end = told.ends.index(row.head_seq) + 1
    changes = [Change(key, values) for key, values in told.log[row.head_seq : told.ends[end]]]
    hq.commit(stream, changes, AT_MS)
    say(committed=told.ends[end])


def _apply_next(replica: Replica, told: Story, say: Say) -> None:
    stream = Stream.parse(told.name, BUILT_IN)
    at = replica.state(stream).position
    end = told.ends[told.ends.index(at) + 1]
    behind = list(enumerate(told.log[at:end], at + 1))
    rows: list[Row] = [(n, *key, *values) for n, (key, values) in behind if values is not None]
    gone: list[Row] = [(n, *key) for n, (key, values) in behind if values is None]
    replica.apply(
        stream,
        epoch=told.epoch,
        position=end,
        digest=digest_of(told.state_at(end)),
        head_seq=end,
        batches=[(rows, gone)],
        replace=False,
        wall_ms=AT_MS,
    )
    say(applied=end)
