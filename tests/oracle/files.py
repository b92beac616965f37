"""What must hold of the files after any fault, held against histories by plain SQL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from storelink.contract.contexts import BUILT_IN
from tests.oracle.history import History, State, digest_of
from tests.oracle.verdicts import Verdict


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection | None]:
    """A snapshot as a till has one; None where the file has not got its tables yet."""
    if not path.exists():
        yield None
        return
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as db:
        db.execute("BEGIN")
        yield db if _has_tables(db, path) else None


def _has_tables(db: sqlite3.Connection, path: Path) -> bool:
    try:
        return bool(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    except sqlite3.OperationalError as error:
        # Cut off while its first page was turned to WAL: only a writer may roll that back, and it holds nothing.
        assert error.sqlite_errorname == "SQLITE_READONLY_ROLLBACK", error.sqlite_errorname
        assert path.stat().st_size <= 4096
        return False


def _unsound(db: sqlite3.Connection) -> list[str]:
    found = [line for (line,) in db.execute("PRAGMA integrity_check")]
    return [] if found == ["ok"] else found


def rows_of(db: sqlite3.Connection, stream: str) -> State:
    name, _, scope = stream.partition("/")
    context = BUILT_IN[name]
    found = db.execute(f"SELECT {', '.join(context.columns)} FROM {context.table} WHERE scope = ?", (scope,)).fetchall()
    state = {tuple(row[1 : 1 + len(context.keys)]): row for row in found}
    assert len(state) == len(found), f"{stream} holds a key twice"
    return state


def judge_replica(path: Path, told: Sequence[History], said: Iterable[dict[str, Any]] = ()) -> Verdict:
    """Rows equal what HQ had at the stored position, which ends a change set and is not behind what was said."""
    verdict = Verdict()
    reached = {(s["stream"], s["epoch"]): s["position"] for s in said if "position" in s}
    with reading(path) as db:
        if db is None:
            verdict.lost += any(reached.values())
            return verdict
        for each in {story.name: story for story in told}:
            _judge_stream(db, each, told, reached, verdict)
        verdict.wrong += _unsound(db)
    return verdict


def _judge_stream(
    db: sqlite3.Connection, name: str, told: Sequence[History], reached: dict[tuple[str, str], int], verdict: Verdict
) -> None:
    epoch, position, digest = db.execute(
        "SELECT epoch, position, digest FROM streams WHERE stream = ?", (name,)
    ).fetchone()
    rows = rows_of(db, name)
    if epoch is None:
        if rows or position:
            verdict.wrong.append(f"{name}: {len(rows)} rows at {position} without an epoch")
        verdict.lost += any(stream == name and position for (stream, _), position in reached.items())
        return
    story = next((s for s in told if (s.name, s.epoch) == (name, epoch)), None)
    if story is None or position not in story.ends:
        verdict.wrong.append(f"{name}: {epoch} {position} is no state that HQ had")
        return
    expected = story.state_at(position)
    if rows != expected:
        verdict.wrong.append(f"{name}: the rows at {position} are not HQ's: {len(rows)} for {len(expected)}")
    if digest != digest_of(expected):
        verdict.wrong.append(f"{name}: the digest at {position} is not HQ's")
    verdict.lost += position < reached.get((name, epoch), 0)


def judge_search(path: Path) -> Verdict:
    """SQLite's own proof that the index equals the rows; needs a writer, so nobody else may be at work."""
    verdict = Verdict()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA wal_autocheckpoint=0")
        try:
            db.execute("INSERT INTO product_search(product_search, rank) VALUES('integrity-check', 1)")
        except sqlite3.DatabaseError as error:
            verdict.wrong.append(f"search: {error}")
    return verdict


Entry = tuple[int, int]
"""Who appended it, and its number there."""


def refused_but_there(directory: Path, said: Iterable[dict[str, Any]], life: int, entries: int) -> set[Entry]:
    """Entries of a life that were not acknowledged and are in the outbox or at HQ."""
    acked = {(life, number) for line in said if "acked" in line for number in line["acked"][1:]}
    sql = "SELECT '', seq, data FROM entries"
    there = {entry for name in ("hq.inbox.db", "outbox.db") for _, entry in _entries(directory / name, sql, Verdict())}
    return there & {(life, number) for number in range(entries)} - acked


def judge_upstream(directory: Path, acked: Iterable[Sequence[int]], *, arrived: bool = False) -> Verdict:
    """Every acknowledged entry is in the outbox or at HQ, none is twice; `arrived`: all are at HQ."""
    verdict = Verdict()
    at_hq = dict(_entries(directory / "hq.inbox.db", "SELECT epoch, seq, data FROM entries", verdict))
    pending = dict(
        _entries(directory / "outbox.db", "SELECT (SELECT epoch FROM outbox), seq, data FROM entries", verdict)
    )
    if any(at_hq.get(name, entry) != entry for name, entry in pending.items()):
        verdict.wrong.append("HQ knows another entry under a seq of this outbox")
    for epoch in {epoch for epoch, _ in at_hq}:
        seqs = sorted(seq for e, seq in at_hq if e == epoch)
        if seqs != list(range(1, len(seqs) + 1)):
            verdict.wrong.append(f"HQ has {seqs} of an outbox")
    stored = list((pending | at_hq).values())
    verdict.lost = len({tuple(a) for a in acked} - set(stored))
    verdict.doubled = len(stored) - len(set(stored))
    if arrived and set(stored) != set(at_hq.values()):
        verdict.wrong.append(f"{len(set(stored) - set(at_hq.values()))} entries did not arrive at HQ")
    return verdict


def _entries(path: Path, sql: str, verdict: Verdict) -> list[tuple[tuple[str, int], Entry]]:
    with reading(path) as db:
        if db is None:
            return []
        verdict.wrong += _unsound(db)
        found = [((epoch, seq), json.loads(text)) for epoch, seq, text in db.execute(sql)]
    return [(name, (entry["life"], entry["number"])) for name, entry in found]


def judge_master(path: Path, told: History, committed: Iterable[int]) -> Verdict:
    """Rows, events and stream agree on one state that was committed whole, not behind what was said."""
    verdict, reached = Verdict(), max(committed, default=0)
    with reading(path) as db:
        if db is None:
            verdict.lost += reached > 0
            return verdict
        verdict.wrong += _unsound(db)
        seq, digest, count = db.execute(
            "SELECT head_seq, digest, rows FROM streams WHERE stream = ?", (told.name,)
        ).fetchone()
        rows = db.execute("SELECT seq, sku, kind, currency, schedule FROM master_price WHERE NOT deleted").fetchall()
        events = [s for (s,) in db.execute("SELECT seq FROM events WHERE stream = ? ORDER BY seq", (told.name,))]
    if seq not in told.ends or events != list(range(1, seq + 1)):
        verdict.wrong.append(f"{seq} with {len(events)} events is no state that was committed")
        return verdict
    state = told.state_at(seq)
    if {row[1:3]: row for row in rows} != state or len(rows) != len(state):
        verdict.wrong.append(f"the rows at {seq} are not those that were committed")
    if (digest, count) != (digest_of(state), len(state)):
        verdict.wrong.append(f"digest or count at {seq} is wrong")
    verdict.lost += seq < reached
    return verdict
