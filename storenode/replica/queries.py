"""What the commands read from a replica, on a read-only connection; works with the daemon dead or hung."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storelink.contract import digest
from storelink.contract.contexts import Context, Contexts
from storelink.contract.schedule import load
from storelink.contract.streams import Stream
from storelink.contract.times import rfc3339
from storelink.host.locks import is_running, lock_path
from storelink.host.sqlite import open_readonly
from storenode.errors import NotFound, ReplicaDamaged, ReplicaMissing, StorenodeError
from storenode.replica import price_clock, schema
from storenode.replica.connection import translated
from storenode.replica.contexts import columns_of, columns_there, problems_of
from storenode.replica.file_schema import foreign_triggers
from storenode.replica.status import clock_status, stream_status

BUSY_TIMEOUT_S = 2.0
SEARCH_WORDS_MAX = 16
SEARCH_SPARE = 8
"""Matches looked at for one product shown: those of a wider scope fall away behind a more specific one."""

Source = Path | sqlite3.Connection
"""A replica's file, or a connection whose owner holds a snapshot."""


@dataclass(frozen=True, slots=True)
class Scan:
    """One stream's content as it is (`digest`, `rows`) and as HQ announced it at `position`.

    `epoch` None: HQ has announced nothing yet, so there is nothing to compare with.
    """

    stream: Stream
    epoch: str | None
    position: int
    digest: str
    announced: str
    rows: int

    @property
    def ok(self) -> bool:
        return self.digest == self.announced


@contextmanager
def reading(path: Source) -> Iterator[sqlite3.Connection]:
    """One snapshot of the replica, read-only."""
    if isinstance(path, sqlite3.Connection):
        yield path
        return
    if not path.exists():
        raise ReplicaMissing(
            f"there is no replica at {path}", hint="start the daemon (storenode run), or set --db / STORENODE_DB"
        )
    with translated(path):
        db = open_readonly(path, BUSY_TIMEOUT_S)
        try:
            if db.execute("PRAGMA application_id").fetchone()[0] != schema.APPLICATION_ID:
                raise ReplicaDamaged(f"{path} is not a replica", hint="check --db / STORENODE_DB")
            db.execute("BEGIN")
            yield db
        finally:
            db.close()


def price_now_ms(path: Source) -> int:
    """The time that prices go by, since 1970; without a replica, or before HQ was heard, the clock."""
    now_ms = time.time_ns() // 1_000_000
    try:
        with reading(path) as db:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'price_clock'").fetchone():
                return now_ms
            now_s: int = db.execute(f"SELECT {price_clock.NOW_S}").fetchone()[0]
    except StorenodeError:
        return now_ms
    return now_ms if abs(now_s - now_ms // 1000) <= 1 else now_s * 1000


def scan(path: Path, stream: Stream) -> Scan:
    """Hash every row of a stream and put the sum beside what HQ announced; 450,000 rows a second."""
    with reading(path) as db:
        epoch, position, announced = db.execute(
            "SELECT epoch, position, digest FROM streams WHERE stream = ?1 UNION ALL"
            " SELECT epoch, position, digest FROM departing WHERE stream = ?1",
            (str(stream),),
        ).fetchone() or (None, 0, digest.EMPTY)
        held = {
            tuple(json.loads(key)): row
            for key, row in db.execute("SELECT key, row FROM quarantine WHERE stream = ?", (str(stream),))
        }
        count, sql = 0, schema.scan_sql(stream.context, columns_there(db, stream))

        def rows() -> Iterator[Any]:
            nonlocal count
            for row in db.execute(sql, (stream.scope,)):
                count += 1
                if not held or stream.context.key_of(row) not in held:
                    yield row

        found = digest.to_hex(digest.total(rows()) + sum(digest.hash_of(row.encode()) for row in held.values()))
    return Scan(stream, epoch, position, found, announced, count)


def check_file(path: Path) -> None:
    """Have SQLite check the whole file, indexes included, and compare its tables and views. Raises ReplicaDamaged.

    A scan reads tables; a till looks things up in indexes and by views, which may be wrong where no row is.
    """
    with reading(path) as db:
        (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        is_this_version = db.execute("PRAGMA user_version").fetchone()[0] == schema.VERSION
        there = schema.shape(db) if is_this_version else schema.expected_shape()
        triggers = foreign_triggers(db)
    other = [name for name, made in schema.expected_shape().items() if there.get(name) != made]
    if found == "ok" and other:
        found = f"{other[0]} is not as it was made"
    if found == "ok" and triggers:
        found = f"trigger {triggers[0]} is not ours: it would run in the daemon's own transactions"
    if found != "ok":
        raise ReplicaDamaged(f"{path} is not a sound replica: {found}", hint="storenode run sets it aside")


def streams(path: Path, contexts: Contexts) -> list[Stream]:
    """The streams that the replica follows, of the contexts that are declared here."""
    with reading(path) as db:
        return _streams(db, contexts)


def _streams(db: sqlite3.Connection, contexts: Contexts) -> list[Stream]:
    names = [name for (name,) in db.execute("SELECT stream FROM streams ORDER BY stream")]
    return [Stream.parse(name, contexts) for name in names if name.partition("/")[0] in contexts]


def quarantined(path: Source) -> list[dict[str, Any]]:
    """The entities whose newest version is held: stream, key, seq, reason, since when, and the version itself."""
    with reading(path) as db:
        found = db.execute("SELECT stream, key, seq, reason, at_ms, row FROM quarantine ORDER BY 1, 2").fetchall()
    return [
        {
            "stream": stream,
            "key": json.loads(key),
            "seq": seq,
            "reason": reason,
            "at": rfc3339(at_ms),
            "row": json.loads(row),
        }
        for stream, key, seq, reason, at_ms, row in found
    ]


def get(path: Source, context: Context, key: Sequence[str], scope: str | None = None) -> dict[str, Any]:
    """One entity's row in a scope, or else in the most specific scope that has it. Raises NotFound."""
    where = " AND ".join(f"t.{name} = ?" for name in context.key_names)
    with reading(path) as db:
        columns = columns_of(db, context)
        found = db.execute(
            f"SELECT t.scope, {', '.join('t.' + c for c in columns)} FROM {context.table} t"
            f" JOIN scopes s ON s.scope = t.scope WHERE {where} AND t.scope = coalesce(?, t.scope)"
            " ORDER BY s.rank DESC LIMIT 1",
            (*key, scope),
        ).fetchone()
    if found is None:
        place = f"scope {scope} of this replica" if scope else "this replica"
        raise NotFound(f"no {context.name} {' '.join(key)} in {place}", hint="is it fresh? storenode status")
    row = dict(zip(("scope", *columns), found, strict=True))
    for column in (c for c in context.values if c.name in row):
        if row[column.name] is not None and column.kind == "json":
            row[column.name] = json.loads(row[column.name])
        elif row[column.name] is not None and column.kind == "boolean":
            row[column.name] = bool(row[column.name])
        elif column.kind == "schedule":
            row[column.name] = [
                {
                    "starts_at": rfc3339(step.starts_at * 1000),
                    "ends_at": None if step.ends_at is None else rfc3339(step.ends_at * 1000),
                    "amount_minor": step.amount_minor,
                }
                for step in load(row[column.name])
            ]
    return row


def price(path: Source, sku: str, at_s: int | None) -> dict[str, Any]:
    """The price of a SKU now, or at `at_s` (seconds since 1970). Raises NotFound."""
    source = "current_prices" if at_s is None else f"({schema.price_at_sql(str(int(at_s)))})"
    names = ("sku", "amount_minor", "currency", "kind", "scope", "starts_at", "ends_at")
    with reading(path) as db:
        found = db.execute(f"SELECT {', '.join(names)} FROM {source} WHERE sku = ?", (sku,)).fetchone()
    if found is None:
        when = "now" if at_s is None else f"at {rfc3339(at_s * 1000)}"
        raise NotFound(f"no price for {sku} {when} in this replica", hint="is it fresh? storenode status")
    return dict(zip(names, found, strict=True))


def query_of(text: str) -> str:
    """Ask an index for every word of a text as the beginning of a word; empty if it has none."""
    words = text.replace("\0", " ").replace('"', " ").encode(errors="replace").decode().split()[:SEARCH_WORDS_MAX]
    return " ".join(f'"{word}"*' for word in words if any(c.isalnum() for c in word))


def search(path: Source, text: str, limit: int) -> list[dict[str, Any]]:
    """Products in which every word of `text` begins a word, the best matches first, with their prices now.

    Any text is harmless: words go into the index's query language quoted. A product that changed a moment ago may
    still be found by what it was called.
    """
    query = query_of(text)
    if not query:
        return []
    names = ("sku", "gtin", "name", "brand", "pack_size", "department", "category", "amount_minor", "currency")
    with reading(path) as db:
        found = db.execute(
            f"SELECT {', '.join('c.' + name for name in names)}"
            " FROM (SELECT rowid, rank FROM product_search(?) ORDER BY rank LIMIT ?) AS f"
            " JOIN products AS p ON p.rowid = f.rowid"
            " JOIN catalog AS c ON c.sku = p.sku"
            f" WHERE p.rowid = ({schema.product_winner('p.sku')}) ORDER BY f.rank, c.sku LIMIT ?",
            (query, limit * SEARCH_SPARE, limit),
        ).fetchall()
    return [dict(zip(names, row, strict=True)) for row in found]


def status(path: Path, contexts: Contexts, source: Source | None = None, *, counted: bool = True) -> dict[str, Any]:
    """The whole status document but its `outbox`; see the operating guide for its keys.

    Args:
        source: where to read; the file if left out.
        counted: whether `rows` are counted, which takes 50 ms a million, or null.
    """
    with reading(source or path) as db:
        daemon = db.execute(
            "SELECT store_id, pid, connected, started_at_ms, seen_at_ms, counters FROM daemon"
        ).fetchone()
        store_id, pid, connected, started_ms, seen_ms, counters = daemon or (None, None, 0, 0, 0, "{}")
        now_ms = time.time_ns() // 1_000_000
        alive = pid is not None and daemon_alive(path)
        heard = alive and now_ms - seen_ms <= schema.STALE_AFTER_S * 1000
        found = {s.name: stream_status(db, s, alive=alive, counted=counted) for s in _streams(db, contexts)}
        problems = problems_of(db)
        clock = clock_status(db)
    wal = path.with_name(path.name + "-wal")
    return {
        "store_id": store_id,
        "connected": bool(connected) and heard,
        "pid": pid if alive else None,
        "uptime_seconds": max(now_ms - started_ms, 0) // 1000 if alive else None,
        "streams": found,
        "contexts": {name: {"problem": problem} for name, problem in problems.items()},
        "outbox": None,
        "clock": clock,
        "database": {
            "path": str(path),
            "bytes": path.stat().st_size,
            "wal_bytes": wal.stat().st_size if wal.exists() else 0,
            "free_bytes": shutil.disk_usage(path.parent).free,
        },
        "counters": json.loads(counters),
    }


def beside_status(path: Path) -> dict[str, Any]:
    """What the screen tells and the status document does not: the age of the heartbeat, the read models' states."""
    with reading(path) as db:
        seen = db.execute("SELECT seen_at_ms FROM daemon").fetchone()
        models = {}
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'read_models'").fetchone():
            rows = db.execute("SELECT name, stream, state FROM read_models ORDER BY 1, 2")
            models = {f"{name} of {stream}": state for name, stream, state in rows}
    age_s = None if seen is None else max(time.time_ns() // 1_000_000 - seen[0], 0) // 1000
    return {"seen_seconds": age_s, "read_models": models}


def daemon_alive(path: Path) -> bool:
    """Whether a daemon has the replica."""
    return is_running(lock_path(path))
