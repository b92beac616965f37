"""Parts of the status document: how one stream stands, and what is known of this machine's clock."""

from __future__ import annotations

import sqlite3
from typing import Any

from storelink.contract.refusal import MessageRefusal, document
from storelink.contract.streams import Stream
from storelink.contract.times import rfc3339
from storenode.replica import price_clock


def stream_status(db: sqlite3.Connection, stream: Stream, *, alive: bool, counted: bool = True) -> dict[str, Any]:
    """How one stream stands; without a daemon (`alive`) none is live; `rows` null unless `counted`."""
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
        "refusal": document(MessageRefusal.from_json(refusal)),
    }


def clock_status(db: sqlite3.Connection) -> dict[str, Any]:
    """How the daemon last judged this machine's clock; `skew_seconds` positive: it is ahead of HQ's."""
    row: tuple[Any, ...] | None = None
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'clock'").fetchone():
        row = db.execute(f"SELECT skew_ms, {price_clock.verdict()}, correction_ms, known_ms FROM clock").fetchone()
    skew_ms, verdict, correction_ms, known_ms = row or (None, "unconfirmed", 0, None)
    return {
        "skew_seconds": None if skew_ms is None else round(skew_ms / 1000, 3),
        "verdict": verdict,
        "correction_seconds": correction_ms // 1000,
        "known_at": None if not known_ms else rfc3339(known_ms),
    }
