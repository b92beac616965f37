"""HQ's inbox: the entries that stores sent, each once, and each store's last status; a file beside the master.

This module alone writes its tables. `synchronous=FULL`: HQ acknowledges only what is on disk, because the store then
removes it. `hq run` is the only writer and the only one to checkpoint; commands read. A position never changes, and
positions rise in the order of commits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec

from hq.errors import InboxDamaged, InboxUnwritable
from storelink.contract.status import OFFLINE, MessageRefusal, Status, refusal_document
from storelink.contract.upstream import OVERRIDE_SET, OVERRIDE_WITHDRAWN, Entry, OutboxBatch, Refusal
from storelink.host.sqlite import is_damage, open_readonly, transaction

APPLICATION_ID = 0x53744249
"""Marks an SQLite file as an inbox ("StBI")."""

VERSION = 1
READ_TIMEOUT_S = 5.0

ABOUT_OVERRIDES = f"type IN ('{OVERRIDE_SET}', '{OVERRIDE_WITHDRAWN}')"
OVERRIDES_INDEX = f"CREATE INDEX IF NOT EXISTS about_overrides ON entries(position) WHERE {ABOUT_OVERRIDES}"
"""Made in older inboxes, too; readers work without it."""

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
class InboxEntry:
    """
    One entry that a store sent.

    Attributes:
        position: the cursor behind this entry; rises in the order in which entries came.
        epoch, seq: the incarnation of the store's outbox, and the entry's number in it.
        at_ms: when the store wrote it, by the store's clock; milliseconds since 1970.
        data: JSON, spelled as the store spelled it.
    """

    position: int
    store: str
    epoch: str
    seq: int
    type: str
    at_ms: int
    data: str


def inbox_path(master: Path) -> Path:
    """Where the inbox of a master is: `hq.inbox.db` beside `hq.db`."""
    return master.with_name(f"{master.stem}.inbox{master.suffix}")


class StoreInbox:
    """
    The writing connection, owned by the receiver's thread; `StoreInbox.open` makes one.

    A crash leaves the last commit complete, and nothing of the one under way.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self.connection = path, connection

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """
        Open the inbox at `path`; make it if there is none.

        Raises:
            InboxDamaged: the file is no inbox of this version, or damaged.
            InboxUnwritable: SQLite cannot make or open it.
        """
        path = Path(path)
        with translated(path), ExitStack() as undo:
            connection = undo.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                connection.executescript(SCHEMA)
            check_inbox(connection, path)
            connection.execute(OVERRIDES_INDEX)
            undo.pop_all()
        return cls(path, connection)

    def close(self) -> None:
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One commit of everything that is written inside; it is on disk when the block ends."""
        with translated(self.path), transaction(self.connection):
            yield

    def through(self, store: str, epoch: str) -> int:
        """The seq up to which HQ has all of an outbox; 0 for an outbox that HQ does not know."""
        with translated(self.path):
            found = self.connection.execute(
                "SELECT seq FROM outboxes WHERE store = ? AND epoch = ?", (store, epoch)
            ).fetchone()
        return int(found[0]) if found else 0

    def newest_outboxes(self) -> list[tuple[str, str]]:
        """Each store with the epoch of the outbox that HQ heard from last."""
        with translated(self.path):
            return self.connection.execute(
                "SELECT store, epoch FROM (SELECT store, epoch, max(seen_at_ms) FROM outboxes GROUP BY store)"
            ).fetchall()

    def put(self, batch: OutboxBatch, after: int, wall_ms: int) -> None:
        """Keep the entries of a batch behind the seq `after`; within `transaction`."""
        db, name = self.connection, (batch.store, batch.outbox)
        entries: list[Entry] = [e for e in batch.entries if e.seq > after]
        refusals: list[Refusal] = [r for r in (*batch.withheld, *batch.refused) if r.seq > after]
        db.executemany(
            "INSERT INTO entries(store, epoch, seq, type, at_ms, received_at_ms, data) VALUES(?, ?, ?, ?, ?, ?, ?)",
            [(*name, e.seq, e.type, e.at_ms, wall_ms, e.data) for e in entries],
        )
        db.executemany(
            "INSERT INTO refused VALUES(?, ?, ?, ?, ?)", [(*name, r.seq, r.reason, wall_ms) for r in refusals]
        )
        db.execute("INSERT OR REPLACE INTO outboxes VALUES(?, ?, ?, ?)", (*name, batch.last, wall_ms))

    def refused(self, store: str, epoch: str, after: int, limit: int) -> list[Refusal]:
        """The entries of an outbox behind `after` that HQ or the store refused, lowest seq first; at most `limit`."""
        with translated(self.path):
            found = self.connection.execute(
                "SELECT seq, reason FROM refused WHERE store = ? AND epoch = ? AND seq > ? ORDER BY seq LIMIT ?",
                (store, epoch, after, limit),
            ).fetchall()
        return [Refusal(*row) for row in found]

    def prune(self, received_before_ms: int, limit: int) -> int:
        """
        Remove the oldest entries, at most `limit` of them; returns how many.

        The inbox still knows up to which seq it had each outbox, so a repeat is still a repeat. Entries about overrides
        stay: `hq overrides` is derived from them.
        """
        with self.transaction():
            return self.connection.execute(
                "DELETE FROM entries WHERE position IN (SELECT position FROM"
                f" (SELECT position, received_at_ms FROM entries WHERE NOT {ABOUT_OVERRIDES} ORDER BY position LIMIT ?)"
                " WHERE received_at_ms < ?)",
                (limit, received_before_ms),
            ).rowcount

    def set_status(self, status: Status, seen_at_ms: int) -> None:
        """Keep a store's newest status; a store that goes offline keeps the one before. Within `transaction`."""
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
) -> Iterator[InboxEntry]:
    """Entries behind a cursor, in order of position; None for any store or type."""
    rows = db.execute(
        "SELECT position, store, epoch, seq, type, at_ms, data FROM entries WHERE position > ?"
        " AND store = coalesce(?, store) AND type = coalesce(?, type) ORDER BY position LIMIT ?",
        (cursor, store, kind, limit),
    )
    return (InboxEntry(*row) for row in rows)


def summary(db: sqlite3.Connection) -> dict[str, Any]:
    """
    What the inbox has of each store's outboxes.

    Returns:
        {"cursor": position of the newest entry,
         "stores": {store: {epoch: {"seq", "entries", "refused", "seen_at_ms"}}}}
    """
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
    """By store: {"online": bool, "seen_at_ms": int, "status": the last status as a dict, or None}."""
    return {
        store: {"online": bool(online), "seen_at_ms": seen_at_ms, "status": msgspec.json.decode(text) if text else None}
        for store, online, seen_at_ms, text in db.execute("SELECT * FROM stores ORDER BY store")
    }


def refusal_of(said: Mapping[str, Any]) -> dict[str, Any] | None:
    """The message of HQ's that a store refuses in one stream, as JSON documents have it; None if it refuses none.

    Args:
        said: the stream's part of a status, as `stores` returns it.
    """
    refused = said.get("refusal")
    return None if refused is None else refusal_document(MessageRefusal(**refused))


def check_inbox(db: sqlite3.Connection, path: Path) -> None:
    """Raise InboxDamaged unless the file is an inbox of this version."""
    ident, version = (db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("application_id", "user_version"))
    if (ident, version) != (APPLICATION_ID, VERSION):
        raise InboxDamaged(f"{path} is not an inbox of this version", hint="use the hq that wrote it")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise InboxDamaged or InboxUnwritable for SQLite's errors."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            raise InboxDamaged(f"{path} is damaged: {error}", hint="keep a copy, then restore it") from error
        raise InboxUnwritable(f"cannot use {path}: {error}", hint="check free space, owner and mode of it") from error
