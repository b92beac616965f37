"""Acts on what is precious: a till's outbox and its way to HQ, the master and its copies, files of an older version."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

from hq.collect.inbox import StoreInbox
from hq.collect.receiver import Receiver
from hq.core.changes import Change
from hq.errors import HqError
from hq.master import backup
from hq.master.store import Master
from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream
from storelink.transport.memory import MemoryBroker, MemoryLink
from storelink.transport.port import LinkEvent
from storenode.errors import ReplicaDamaged, StorenodeError
from storenode.outbox.sender import Sender
from storenode.outbox.store import Outbox
from storenode.replica import schema
from storenode.replica.file import replace_damaged
from storenode.replica.writer import Replica
from tests.faults.acts.replicas import stories
from tests.faults.acts.stage import Say
from tests.faults.acts.stories import AT_MS, ROOT
from tests.faults.scale import seeded

ENTRIES = 6


class _Upstream:
    """A till's outbox, the daemon's sender, HQ's receiver and its inbox, on a broker in memory."""

    def __init__(self, directory: Path) -> None:
        self._broker = MemoryBroker(seeded("outbox"))
        self._broker.reconnect_ms_max = 0
        self._events: dict[str, list[LinkEvent]] = {"store": [], "hq": []}
        links = {name: MemoryLink(self._broker, name, queue.append) for name, queue in self._events.items()}
        self._inbox = StoreInbox(directory / "hq.inbox.db")
        self._sender = Sender(ROOT, "s", directory / "outbox.db", 10**8, links["store"])
        self._receiver = Receiver(ROOT, self._inbox, links["hq"])
        for link in links.values():
            link.start()
        self._now_ms = 0

    def turns(self, count: int) -> None:
        for _ in range(count):
            self._now_ms += 2_000
            self._broker.advance(self._now_ms)
            for event in self._taken("hq"):
                self._receiver.handle(event, self._now_ms, AT_MS + self._now_ms)
            self._receiver.flush(self._now_ms, AT_MS + self._now_ms)
            self._broker.advance(self._now_ms)
            for event in self._taken("store"):
                self._sender.handle(event, self._now_ms)
            self._sender.step(self._now_ms, AT_MS + self._now_ms)

    def close(self) -> None:
        """Let go of both files, the inbox with a checkpoint, as a last close has."""
        self._sender.close()
        self._inbox.connection.close()

    def _taken(self, name: str) -> list[LinkEvent]:
        waiting, self._events[name][:] = list(self._events[name]), []
        return waiting


def upstream(directory: Path, say: Say, *, life: int, ack_early: bool = False, sends: bool = True) -> None:
    """Append entries that say who they are (`life`, number), and carry them to HQ; `ack_early` is a planted fault."""
    errors = 0

    def failed(error: StorenodeError | HqError) -> None:
        nonlocal errors
        errors += 1
        say(error=type(error).__name__, hint=error.hint)
        if errors == 1:
            say.pause()
        if errors >= 8:
            os._exit(1)

    outbox: Outbox | None = None
    line: _Upstream | None = None
    for number in range(ENTRIES):
        try:
            outbox = outbox or Outbox(directory / "outbox.db", busy_timeout_s=0.1)
            if ack_early:
                say(acked=[life, number])
            outbox.append("t", {"life": life, "number": number}, AT_MS)
            say(acked=[life, number])
        except StorenodeError as error:
            failed(error)
        try:
            if sends and number % 3 == 2:
                line = line or _Upstream(directory)
                line.turns(8)
                if outbox is not None:
                    outbox.checkpoint(0)
        except HqError as error:
            failed(error)
    say(done=True)
    if line is not None and errors == 0:
        line.close()
    os._exit(0)


def master(directory: Path, say: Say, *, ack_early: bool = False) -> None:
    """HQ makes its master and commits four change sets; those that are there already change nothing."""
    stream, told = Stream.parse("price/all", BUILT_IN), stories("")[1]
    errors = 0
    with ExitStack() as stack:
        opened: Master | None = None
        for end in range(len(told.ends) - 1):
            changes = [Change(key, values) for key, values in told.log[told.ends[end] : told.ends[end + 1]]]
            while True:
                try:
                    if opened is None:
                        opened = Master(directory / "hq.db", BUILT_IN, lambda: 0)
                        opened.create(AT_MS)
                        stack.callback(opened.close)
                    head = opened.stream(stream)
                    assert head is not None
                    if head.head_seq < told.ends[end + 1]:
                        if ack_early:
                            say(committed=told.ends[end + 1])
                        opened.commit(stream, changes, AT_MS)
                        say(committed=told.ends[end + 1])
                    break
                except HqError as error:
                    errors += 1
                    say(error=type(error).__name__, hint=error.hint)
                    if errors == 1:
                        say.pause()
                    if opened is not None:
                        opened.close()
                        opened = None
                    if errors >= 3:
                        os._exit(1)
        say(done=True)


COPIED = 3
"""Change sets in the copy of the master that is put back."""


def ready_for_restore(directory: Path, say: Say) -> None:
    """A master that has gone on since its copy was made."""
    stream, told = Stream.parse("price/all", BUILT_IN), stories("")[1]
    with Master(directory / "hq.db", BUILT_IN, lambda: 0) as opened:
        opened.create(AT_MS)
        for end in range(len(told.ends) - 1):
            if end == COPIED:
                backup.back_up(directory / "hq.db", directory / "copy.db", BUILT_IN)
            changes = [Change(key, values) for key, values in told.log[told.ends[end] : told.ends[end + 1]]]
            opened.commit(stream, changes, AT_MS)
    say(done=True)
    os._exit(0)  # HQ's log is as full as a killed HQ leaves it


def backing_up(directory: Path, say: Say) -> None:
    """Copy the master, unless the copy is there."""
    try:
        if not (directory / "second.db").exists():
            backup.back_up(directory / "hq.db", directory / "second.db", BUILT_IN)
        say(done=True)
    except HqError as error:
        say(error=type(error).__name__, hint=error.hint)
        say.pause()
        os._exit(1)


def restoring(directory: Path, say: Say) -> None:
    """Put the copy back in the master's place."""
    try:
        backup.restore(directory / "hq.db", directory / "copy.db", AT_MS, BUILT_IN, lambda: 1)
        say(done=True)
    except HqError as error:
        say(error=type(error).__name__, hint=error.hint)
        say.pause()
        os._exit(1)


def age(directory: Path, say: Say) -> None:
    """Make of the store's files what an earlier version would have left."""
    outbox = Outbox(directory / "outbox.db")
    for number in range(ENTRIES):
        outbox.append("t", {"life": 1, "number": number}, AT_MS)
    older = {
        "outbox.db": ("DROP TABLE overrides", "PRAGMA user_version = 1"),
        "replica.db": (f"PRAGMA user_version = {schema.VERSION - 1}",),
    }
    for name, statements in older.items():
        with closing(sqlite3.connect(directory / name, isolation_level=None)) as db:
            for statement in statements:
                db.execute(statement)
    shutil.rmtree(directory / "replica.db.spool")
    say(done=True)


def upgrade(directory: Path, say: Say) -> None:
    """Open the files of an earlier version, for writing; a replica is replaced, as the daemon does."""
    try:
        Outbox(directory / "outbox.db").append("t", {"life": 2, "number": 0}, AT_MS)
        say(acked=[2, 0])
        replica = directory / "replica.db"
        try:
            Replica.open(replica, ("all",), BUILT_IN)
        except ReplicaDamaged as error:
            replace_damaged(replica, datetime.now(UTC), error, served_here=True)
            Replica.open(replica, ("all",), BUILT_IN)
        say(done=True)
        os._exit(0)
    except StorenodeError as error:
        say(error=type(error).__name__, hint=error.hint)
        say.pause()
        os._exit(1)
