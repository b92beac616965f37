"""Reading the master for people: its event log, and the proof that log, rows and digests agree."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hq.master import context_migration
from hq.master.store import Master, StreamRow
from storelink.contract.contexts import Key, Row
from storelink.contract.rows import EMPTY, MODULUS, row_hash, to_hex, total
from storelink.contract.streams import Stream
from storelink.contract.times import rfc3339

EVENTS_PER_READ = 10_000

_DELETED = "SELECT 1 FROM events WHERE stream = ? AND seq = ? AND op = 'delete'"

_LOGGED = "SELECT stream, seq, at_ms, op, key, changed FROM events"


def logged(
    master: Master, stream: Stream | None, since_seq: int | None, since_ms: int | None, limit: int
) -> list[dict[str, Any]]:
    """Up to `limit` events in order of time: from a seq or time on, or else the newest."""
    where = ["stream = ?"]
    bounds: list[object] = []
    if since_seq is not None:
        where.append("seq >= ?")
        bounds.append(since_seq)
    if since_ms is not None:
        where.append("at_ms >= ?")
        bounds.append(since_ms)
    newest = not bounds
    sql = f"{_LOGGED} WHERE {' AND '.join(where)} ORDER BY seq {'DESC' if newest else 'ASC'} LIMIT ?"
    with master.reading():
        asked = master.streams() if stream is None else [row for row in [master.stream(stream)] if row]
        names = [str(row.stream) for row in asked]
        found = [event for name in names for event in master.query(sql, (name, *bounds, limit))]
    found.sort(key=lambda event: (event[2], event[0], event[1]))
    found = found[-limit:] if newest else found[:limit]
    return [
        {
            "stream": name,
            "seq": seq,
            "time": rfc3339(at_ms),
            "op": op,
            "key": json.loads(key),
            "changed": json.loads(changed),
        }
        for name, seq, at_ms, op, key, changed in found
    ]


@dataclass(frozen=True, slots=True)
class Finding:
    """What verifying one stream found; `problems` is empty when all agree."""

    stream: Stream
    head_seq: int
    rows: int
    digest: str
    problems: tuple[str, ...]


def verify(master: Master) -> list[Finding]:
    """Recompute every stream's digest from its rows and again from its events, in one snapshot."""
    with master.reading():
        return [_verify(master, row) for row in master.streams()]


def _verify(master: Master, row: StreamRow) -> Finding:
    rows, deleted = master.rows_between(row.stream, 1, row.head_seq)
    digest = to_hex(total(rows))
    problems = []
    if digest != row.digest:
        problems.append(f"the rows' digest is {digest}, the stream says {row.digest}")
    live = len(master.live_rows(row.stream))
    if live != row.rows or len(rows) != live:
        problems.append(f"{live} live rows, {len(rows)} of them up to the head; the stream says {row.rows}")
    seqs = sorted(int(str(r[0])) for r in (*rows, *deleted))
    problems += _verify_events(master, row, seqs)
    return Finding(row.stream, row.head_seq, live, digest, tuple(problems))


def _verify_events(master: Master, row: StreamRow, seqs: list[int]) -> list[str]:
    """Replay the log from its beginning: no gap, each digest right, its last rows the master's."""
    context, reshapes = row.stream.context, context_migration.reshapes(master.query, row.stream.name)
    width = len(context.columns) - sum(len(reshape.fill) for reshape in reshapes)
    newest: dict[Key, Row] = {}
    acc, seq = 0, 0
    while events := master.events_after(row.stream, seq, EVENTS_PER_READ):
        for event in events:
            if event.seq != seq + 1:
                return [f"event {seq + 1} is missing from the log"]
            for reshape in (r for r in reshapes if r.seq == seq):
                acc, width = _widen(newest, width, reshape.fill), width + len(reshape.fill)
            seq, key = event.seq, context.key_of(event.row)
            old = newest.get(key)
            if event.prev_seq not in _earlier(old, row.floor, width):
                return [f"event {seq} names {event.prev_seq} as the entity's earlier version"]
            acc -= row_hash(old) if old is not None and len(old) == width else 0
            acc += row_hash(event.row) if event.op == "upsert" else 0
            newest[key] = event.row
            if event.digest != to_hex(acc % MODULUS):
                return [f"event {seq} carries the digest {event.digest}; replayed it is {to_hex(acc % MODULUS)}"]
    for reshape in (r for r in reshapes if r.seq == seq):
        acc, width = _widen(newest, width, reshape.fill), width + len(reshape.fill)
    problems = []
    if seq != row.head_seq or (to_hex(acc) if seq else EMPTY) != row.digest:
        problems.append(f"the log ends at {seq}, the stream says {row.head_seq}")
    pruned = [r for r in newest.values() if len(r) < width and int(str(r[0])) <= row.floor]
    if sorted({int(str(r[0])) for r in newest.values()} - {int(str(r[0])) for r in pruned}) != seqs:
        problems.append("the newest events are not the master's rows")
    if row.floor and not master.query(_DELETED, (str(row.stream), row.floor)):
        problems.append(f"tombstones are said to be gone up to {row.floor}, which is no deletion")
    return problems


def _widen(newest: dict[Key, Row], width: int, fill: Row) -> int:
    """Give the live rows the columns that they gained; returns the sum of their hashes."""
    for key, row in newest.items():
        if len(row) == width:
            newest[key] = row + fill
    return total(row for row in newest.values() if len(row) == width + len(fill))


def _earlier(old: Row | None, floor: int, width: int) -> tuple[int, ...]:
    """What an event may name as its entity's earlier version: 0, too, once the tombstone may have been pruned."""
    if old is None:
        return (0,)
    seq = int(str(old[0]))
    return (seq, 0) if len(old) < width and seq <= floor else (seq,)
