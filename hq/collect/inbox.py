"""HQ's inbox: what stores sent, each entry once, and how each store stands; a file beside the master.

`synchronous=FULL`: what is acknowledged to a store is on disk, because the store then removes it. `hq run` is the only
writer and the only one to checkpoint; commands read. A position never changes and rises in the order of commits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hq.errors import InboxDamaged, InboxUnwritable
from storelink.contract.refusal import MessageRefusal, document
from storelink.contract.status import OFFLINE, Status
from storelink.contract.upstream import OVERRIDE_SET, OVERRIDE_WITHDRAWN, Entry, OutboxBatch, Refusal
from storelink.host.sqlite import is_damage, open_readonly, transaction

APPLICATION_ID = 0x53744249
"""Marks an SQLite file as an inbox ("StBI")."""

VERSION = 1
READ_TIMEOUT_S = 5.0
PRUNE_MAX = 1_000
"""Entries of one transaction."""

ABOUT_OVERRIDES = f"type IN ('{OVERRIDE_SET}', '{OVERRIDE_WITHDRAWN}')"
OVERRIDES_INDEX = f"CREATE INDEX IF NOT EXISTS about_overrides ON entries(position) WHERE {ABOUT_OVERRIDES}"
"""Also in an inbox that was made before; readers do without."""

SCHEMA = f"""
BEGIN;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
CREATE TABLE entries (
    position INTEGER PRIMARY KEY AUTOINCREMENT, store TEXT NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL,
    type TEXT NOT NULL, at_ms INTEGER NOT NULL, received_at_ms INTEGER NOT NULL, data TEXT NOT NULL,
    UNIQUE (store, epoch, seq)
);
CREATE TABLE outboxes (
    store TEXT NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL, seen_at_ms INTEGER NOT NULL,
    PRIMARY KEY (store, epoch)
);
CREATE TABLE refused (
    store TEXT NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL, reason TEXT NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (store, epoch, seq)
);
CREATE TABLE stores (store TEXT PRIMARY KEY, online INTEGER NOT NULL, seen_at_ms INTEGER NOT NULL, status TEXT);
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """One entry as it is kept; `position` is the cursor behind it."""

    position: int
    store: str
    epoch: str
    seq: int
    type: str
    at_ms: int
    data: str


def inbox_path(master: Path) -> Path:
    return master.with_name(f"{master.stem}.inbox{master.suffix}")


class StoreInbox:
    """The writing connection; owned by the collector's thread. A crash leaves the last commit, whole."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with translated(self.path):
            self.connection = sqlite3.connect(path, isolation_level=None)
            self.connection.execute("PRAGMA journal_mode=WAL")
            self.connection.execute("PRAGMA synchronous=FULL")
            if not self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                self.connection.executescript(SCHEMA)
            check_inbox(self.connection, self.path)
            self.connection.execute(OVERRIDES_INDEX)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One commit over all that is put inside; on disk when it ends."""
        with translated(self.path), transaction(self.connection):
            yield

    def through(self, store: str, epoch: str) -> int:
        """The seq through which all of an outbox is here; 0 for one that is not known."""
        with translated(self.path):
            found = self.connection.execute(
                "SELECT seq FROM outboxes WHERE store = ? AND epoch = ?", (store, epoch)
            ).fetchone()
        return int(found[0]) if found else 0

    def newest_outboxes(self) -> list[tuple[str, str]]:
        """Each store with the epoch of the outbox that was heard of last."""
        with translated(self.path):
            return self.connection.execute(
                "SELECT store, epoch FROM (SELECT store, epoch, max(seen_at_ms) FROM outboxes GROUP BY store)"
            ).fetchall()

    def put(self, batch: OutboxBatch, after: int, now_ms: int) -> None:
        """Keep what of a batch lies behind `after`; within `transaction`."""
        db, name = self.connection, (batch.store, batch.outbox)
        entries: list[Entry] = [e for e in batch.entries if e.seq > after]
        refusals: list[Refusal] = [r for r in (*batch.withheld, *batch.refused) if r.seq > after]
        db.executemany(
            "INSERT INTO entries(store, epoch, seq, type, at_ms, received_at_ms, data) VALUES(?, ?, ?, ?, ?, ?, ?)",
            [(*name, e.seq, e.type, e.at_ms, now_ms, e.data) for e in entries],
        )
        db.executemany(
            "INSERT INTO refused VALUES(?, ?, ?, ?, ?)", [(*name, r.seq, r.reason, now_ms) for r in refusals]
        )
        db.execute("INSERT OR REPLACE INTO outboxes VALUES(?, ?, ?, ?)", (*name, batch.last, now_ms))

    def refused(self, store: str, epoch: str, after: int, limit: int) -> list[Refusal]:
        """What was refused of an outbox behind `after`, lowest first."""
        with translated(self.path):
            found = self.connection.execute(
                "SELECT seq, reason FROM refused WHERE store = ? AND epoch = ? AND seq > ? ORDER BY seq LIMIT ?",
                (store, epoch, after, limit),
            ).fetchall()
        return [Refusal(*row) for row in found]

    def prune(self, received_before_ms: int) -> int:
        """
        Drop some of the oldest entries; returns how many. At most PRUNE_MAX, so that stores hardly wait.

        What an outbox was heard of up to stays known, so a repeat is still a repeat. Entries about overrides stay:
        `hq overrides` is derived from them.
        """
        with self.transaction():
            return self.connection.execute(
                "DELETE FROM entries WHERE position IN (SELECT position FROM"
                f" (SELECT position, received_at_ms FROM entries WHERE NOT {ABOUT_OVERRIDES} ORDER BY position LIMIT ?)"
                " WHERE received_at_ms < ?)",
                (PRUNE_MAX, received_before_ms),
            ).rowcount

    def set_status(self, status: Status, seen_at_ms: int) -> None:
        """Keep a store's last word; one that goes offline keeps what it last said of itself. Within `transaction`."""
        if status.state == OFFLINE and not status.streams:
            self.connection.execute(
                "INSERT INTO stores VALUES(?, 0, ?, NULL) ON CONFLICT (store) DO UPDATE SET online = 0",
                (status.store, seen_at_ms),
            )
            return
        self.connection.execute(
            "INSERT OR REPLACE INTO stores VALUES(?, 1, ?, ?)",
            (status.store, seen_at_ms, msgspec.json.encode(status).decode()),
        )


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection | None]:
    """One snapshot of the inbox at `path`, read-only; None if `hq run` never made it."""
    if not path.exists():
        yield None
        return
    with (
        translated(path),
        closing(open_readonly(path, READ_TIMEOUT_S)) as db,
    ):
        db.execute("BEGIN")
        if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            yield None  # `hq run` has only just made the file
            return
        check_inbox(db, path)
        yield db


def entries_after(
    db: sqlite3.Connection, cursor: int, limit: int, store: str | None = None, kind: str | None = None
) -> Iterator[Kept]:
    """Entries behind a cursor, in order of position."""
    rows = db.execute(
        "SELECT position, store, epoch, seq, type, at_ms, data FROM entries WHERE position > ?"
        " AND store = coalesce(?, store) AND type = coalesce(?, type) ORDER BY position LIMIT ?",
        (cursor, store, kind, limit),
    )
    return (Kept(*row) for row in rows)


def summary(db: sqlite3.Connection) -> dict[str, Any]:
    """What there is of each store's outboxes; `cursor` is the position of the newest entry."""
    stores: dict[str, dict[str, Any]] = {}
    for store, epoch, seq, seen_at_ms, entries, refused in db.execute(
        "SELECT store, epoch, seq, seen_at_ms,"
        " (SELECT count(*) FROM entries e WHERE e.store = o.store AND e.epoch = o.epoch),"
        " (SELECT count(*) FROM refused r WHERE r.store = o.store AND r.epoch = o.epoch) FROM outboxes o ORDER BY 1, 2"
    ):
        found = {"seq": seq, "entries": entries, "refused": refused, "seen_at_ms": seen_at_ms}
        stores.setdefault(store, {})[epoch] = found
    newest = db.execute("SELECT coalesce(max(position), 0) FROM entries").fetchone()[0]
    return {"cursor": newest, "stores": stores}


def stores(db: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    """Each store's last status: `online`, `seen_at_ms`, and what it said."""
    return {
        store: {"online": bool(online), "seen_at_ms": seen_at_ms, "status": msgspec.json.decode(text) if text else None}
        for store, online, seen_at_ms, text in db.execute("SELECT * FROM stores ORDER BY store")
    }


def refusal_of(said: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a store said that it refuses of one stream, as JSON documents have it; `said`: of a status in `stores`."""
    told = said.get("refusal")
    return None if told is None else document(MessageRefusal(**told))


def check_inbox(db: sqlite3.Connection, path: Path) -> None:
    """Raise InboxDamaged unless the file is an inbox of this version."""
    ident, version = (db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("application_id", "user_version"))
    if (ident, version) != (APPLICATION_ID, VERSION):
        raise InboxDamaged(f"{path} is not an inbox of this version", hint="use the hq that wrote it")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise HqErrors for SQLite's."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            raise InboxDamaged(f"{path} is damaged: {error}", hint="keep a copy, then restore it") from error
        raise InboxUnwritable(f"cannot use {path}: {error}", hint="check free space, owner and mode of it") from error
