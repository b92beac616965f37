"""The checks of `hq doctor`: master, disk, `hq run`, the broker and the heads that it keeps; they change nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hq.config import Settings
from hq.master import context_migration, lock, streams
from hq.master.schema import APPLICATION_ID, VERSION
from hq.publish.broker_heads import HINT, KeptHead, read_head, said_of
from hq.publish.publication import read_published
from storelink.contract.contexts import Contexts
from storelink.contract.errors import ContractViolation
from storelink.contract.messages import Message, decode_head
from storelink.contract.streams import Stream, head_topic
from storelink.contract.times import rfc3339
from storelink.host.sqlite import open_file
from storelink.transport.probe import Probe, Unreached, reach, resolve

OK, WARN, FAIL = "ok", "warn", "fail"
FREE_BYTES_MIN, FREE_BYTES_LOW = 100_000_000, 1_000_000_000
HEADS_S = 2.0
READ_TIMEOUT_S = 2.0
QUICK_CHECK_S = 5.0
STEPS_PER_LOOK = 100_000
START = "systemctl start hq"

Heads = dict[Stream, tuple[str, int, set[str]]]
"""Epoch and seq of each stream, and every epoch that the master ever had."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was checked, the verdict (`ok`, `warn`, `fail`), a sentence, and what to type next, if anything."""

    name: str
    verdict: str
    sentence: str
    todo: str = ""


def checks(settings: Settings) -> Iterator[Check]:
    """Check everything, one thing after the other; it takes about 15 s at most."""
    yield Check("configuration", OK, f"The settings are sound: master {settings.db}, broker {settings.broker}.")
    running = lock.runs(settings.db)
    heads: Heads = {}
    try:
        yield from _place(settings.db)
        yield from _master(settings.db, settings.registry, heads, running=running)
    except (OSError, sqlite3.Error) as error:
        yield Check("master", FAIL, f"The master cannot be looked at: {error}.", "check db, its owner and mode")
    foreign = ", ".join(read_published(settings.db)["foreign"]) if running else ""
    if foreign:
        said = f"hq run publishes nothing: the broker keeps heads of another master ({foreign})."
        yield Check("daemon", FAIL, said, HINT)
    elif running:
        yield Check("daemon", OK, "hq run is at work.")
    else:
        yield Check("daemon", FAIL, "hq run does not run: nothing that changes reaches a store.", START)
    yield from _broker(settings, heads, running=running)


def _place(path: Path) -> Iterator[Check]:
    home = path.absolute().parent
    if not os.access(home, os.W_OK):
        yield Check("directory", WARN, f"This user may not write in {home}.", "join its group, or be the daemon's user")
    free_bytes = shutil.disk_usage(home).free
    verdict = FAIL if free_bytes < FREE_BYTES_MIN else WARN if free_bytes < FREE_BYTES_LOW else OK
    todo = "" if verdict == OK else "df -h, then free some space"
    yield Check("disk", verdict, f"{free_bytes // 1_000_000} MB are free where the master is.", todo)


def _master(path: Path, contexts: Contexts, heads: Heads, *, running: bool) -> Iterator[Check]:
    """Whether the file is a master and sound; fills `heads` with what it holds."""
    if not path.exists():
        yield Check("master", FAIL, f"There is no master at {path}.", "hq init; or check db / HQ_DB")
        return
    if (db := _opened(path, running=running)) is None:
        yield Check("master", WARN, f"{path} was not looked at: to open it would change what lies beside it.", START)
        return
    with closing(db):
        if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            yield Check("master", FAIL, f"{path} is not a master of hq.", "check db / HQ_DB; hq init makes a new one")
            return
        if (version := db.execute("PRAGMA user_version").fetchone()[0]) != VERSION:
            said = f"{path} has format {version}, this hq knows only {VERSION}."
            yield Check("master", FAIL, said, "use the hq that wrote it")
            return
        yield from _streams(db, heads, contexts)
        yield _sound(db)


def _streams(db: sqlite3.Connection, heads: Heads, contexts: Contexts) -> Iterator[Check]:
    """Fill `heads` with the streams that are published; warn of the contexts that are not."""

    def query(sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return db.execute(sql, parameters).fetchall()

    for name, reason in context_migration.left_out(query, contexts).items():
        yield Check("contexts", WARN, f"{name}: {reason}.", context_migration.HINT)
    had = {epoch for _, epoch in streams.epochs(query)}  # one set for all: each stream's own epoch is among them
    for name, epoch, seq, *_ in context_migration.known_streams(query, contexts):
        heads[Stream.parse(name, contexts)] = (epoch, seq, had)


def _opened(path: Path, *, running: bool) -> sqlite3.Connection | None:
    """Connect without making a file: SQLite makes -wal and -shm where they are missing. None if that is impossible."""
    beside = [Path(f"{path}{suffix}").exists() for suffix in ("-wal", "-shm")]
    if not all(beside) and (running or any(beside)):
        return None
    # Without a write-ahead log, the file alone is complete.
    return open_file(path, "ro" if all(beside) else "ro&immutable=1", READ_TIMEOUT_S)


def _sound(db: sqlite3.Connection) -> Check:
    """SQLite's quick check, given up after QUICK_CHECK_S."""
    give_up_s = time.monotonic() + QUICK_CHECK_S
    db.set_progress_handler(lambda: time.monotonic() > give_up_s, STEPS_PER_LOOK)
    try:
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if "interrupted" not in str(error):
            raise
        said = f"Nothing wrong was found in the master in {QUICK_CHECK_S:g} s; hq verify proves it."
        return Check("master", OK, said)
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        return Check("master", FAIL, f"The master is damaged: {found[:200]}.", "restore it: hq restore")
    return Check("master", OK, "The master is sound; hq verify proves its content.")


def _broker(settings: Settings, heads: Heads, *, running: bool) -> Iterator[Check]:
    url, step = settings.broker, "broker"
    try:
        place = reach(url, resolve(url))
        yield Check(step, OK, f"{url.host} is {place}, and port {url.port} is open.")
        step = "credentials"
        with Probe(url, "hq-doctor") as probe:
            probe.connect()
            yield Check(step, OK, f"The broker {url} lets us in.")
            yield from _kept(settings.root, settings.registry, probe, heads, running=running)
    except Unreached as error:
        yield Check(step, FAIL, str(error), error.todo)


def _kept(root: str, contexts: Contexts, probe: Probe, heads: Heads, *, running: bool) -> Iterator[Check]:
    """Whether the broker keeps the newest head of each stream, and no head of another master."""
    found: dict[Stream, KeptHead] = {}
    streams = {head_topic(root, stream): stream for stream in heads}

    def take(message: Message) -> bool:
        stream = streams.get(message.topic)
        if stream is not None and message.payload:
            kept = read_head(message)
            if not heads[stream][2].isdisjoint(kept.epochs):
                with suppress(ContractViolation):  # one of ours that is damaged counts as none
                    decode_head(root, message, contexts)
                    found[stream] = kept
            elif kept.epochs:
                found[stream] = kept
        return found.keys() >= heads.keys()

    probe.listen(list(streams), take, HEADS_S if heads else 0.0)
    todo = "journalctl -u hq -n 20" if running else START
    for stream, (epoch, seq, had) in heads.items():
        kept = found.get(stream)
        if kept is None:
            yield Check("head", FAIL, f"{stream}: the broker keeps no head of it, or this user may not read it.", todo)
        elif had.isdisjoint(kept.epochs):
            said = f"{stream}: the broker's head is another master's, so hq run publishes nothing: "
            yield Check("head", FAIL, said + said_of(max(kept.epochs), kept.seq, rfc3339(kept.at_ms)) + ".", HINT)
        elif epoch not in kept.epochs:
            yield Check("head", FAIL, f"{stream}: the broker's head is of another epoch than the master.", todo)
        elif kept.seq < seq:
            said = f"{stream}: the broker's head is at {kept.seq}, the master at {seq}."
            yield Check("head", WARN if running else FAIL, said, todo)
        else:
            yield Check("head", OK, f"{stream}: the broker keeps its head at {kept.seq}.")
