"""The status document: what a replica says about itself, its streams and its clock, and whether a daemon is at work."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

from storelink.contract.contexts import Contexts
from storelink.contract.status import MessageRefusal, refusal_document
from storelink.contract.streams import Stream
from storelink.contract.times import rfc3339
from storelink.host.locks import is_running, lock_path
from storenode.replica import price_clock, schema
from storenode.replica.contexts import problems_of
from storenode.replica.file import Source, reading
from storenode.replica.queries import streams_in


def status_document(
    path: Path, contexts: Contexts, source: Source | None = None, *, counted: bool = True
) -> dict[str, Any]:
    """The status document but for its `outbox`; see the operating guide for its keys.

    Args:
        source: where to read; the file if left out.
        counted: whether `rows` are counted, which takes 50 ms a million, or null.
    """
    with reading(source or path) as db:
        daemon = db.execute(
            "SELECT store_id, pid, connected, started_at_ms, seen_at_ms, counters FROM daemon"
        ).fetchone()
        store_id, pid, connected, started_ms, seen_ms, counters = daemon or (None, None, 0, 0, 0, "{}")
        wall_ms = time.time_ns() // 1_000_000
        alive = pid is not None and daemon_alive(path)
        heard = alive and wall_ms - seen_ms <= schema.STALE_AFTER_S * 1000
        found = {s.name: _stream(db, s, alive=alive, counted=counted) for s in streams_in(db, contexts)}
        problems = problems_of(db)
        clock = _clock(db)
    wal = path.with_name(path.name + "-wal")
    return {
        "store_id": store_id,
        "connected": bool(connected) and heard,
        "pid": pid if alive else None,
        "uptime_seconds": max(wall_ms - started_ms, 0) // 1000 if alive else None,
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


def beside_document(path: Path) -> dict[str, Any]:
    """What the screen shows and the document lacks: the age of the heartbeat, and the read models' states."""
    with reading(path) as db:
        seen = db.execute("SELECT seen_at_ms FROM daemon").fetchone()
        rows = db.execute("SELECT name, stream, state FROM read_models ORDER BY 1, 2")
        models = {f"{name} of {stream}": state for name, stream, state in rows}
    age_s = None if seen is None else max(time.time_ns() // 1_000_000 - seen[0], 0) // 1000
    return {"seen_seconds": age_s, "read_models": models}


def daemon_alive(path: Path) -> bool:
    """Whether a daemon has the replica."""
    return is_running(lock_path(path))


def _stream(db: sqlite3.Connection, stream: Stream, *, alive: bool, counted: bool = True) -> dict[str, Any]:
    """The member of one stream; without a daemon (`alive`) none is live; `rows` null unless `counted`."""
    state, position, head_seq, lag, as_of, stale = db.execute(
        "SELECT state, position, head_seq, lag_events, as_of, stale_seconds FROM freshness WHERE stream = ?",
        (stream.name,),
    ).fetchone()
    epoch, announced, verified_ms, verified_ok, quarantined, rebuilt_ms, rebuild_reason, refusal = db.execute(
        "SELECT epoch, digest, verified_at_ms, verified_ok, quarantined, rebuilt_at_ms, rebuild_reason, refusal"
        " FROM streams WHERE stream = ?",
        (stream.name,),
    ).fetchone()
    rows = None
    if counted:
        (rows,) = db.execute(f"SELECT count(*) FROM {stream.context.table} WHERE scope = ?", (stream.scope,)).fetchone()
    if not alive and state in ("live", "catching_up"):
        state = "offline"
    return {
        "state": state,
        "epoch": epoch,
        "position": position,
        "head_seq": head_seq,
        "lag_events": lag,
        "as_of": as_of,
        "stale_seconds": stale,
        "rows": rows,
        "digest": announced,
        "verified_at": None if verified_ms is None else rfc3339(verified_ms),
        "verified_ok": None if verified_ok is None else bool(verified_ok),
        "quarantined": quarantined,
        "rebuilt_at": None if rebuilt_ms is None else rfc3339(rebuilt_ms),
        "rebuild_reason": rebuild_reason,
        "refusal": refusal_document(MessageRefusal.from_json(refusal)),
    }


def _clock(db: sqlite3.Connection) -> dict[str, Any]:
    """How the daemon last judged this machine's clock; `skew_seconds` positive: it is ahead of HQ's."""
    row = db.execute(f"SELECT skew_ms, {price_clock.verdict()}, correction_ms, known_ms FROM clock").fetchone()
    skew_ms, verdict, correction_ms, known_ms = row or (None, "unconfirmed", 0, None)
    return {
        "skew_seconds": None if skew_ms is None else round(skew_ms / 1000, 3),
        "verdict": verdict,
        "correction_seconds": correction_ms // 1000,
        "known_at": None if not known_ms else rfc3339(known_ms),
    }
