"""What the master makes of declared contexts: a table for each new one, and further columns for one that gained some.

The master records of each declared context which columns its rows have. A process whose declaration is another leaves
that context alone, and goes on with the rest. When columns are gained, every stream of the context begins a new epoch
at the same seq, with the digest of the longer rows; `reshapes` keeps what the log needs to be replayed across it.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hq.errors import ContextDiffers
from hq.master import epochs, schema
from storelink.contract.contexts import BUILT_IN, CONTEXTS, Context, Row
from storelink.contract.digest import EMPTY, to_hex, total
from storelink.contract.evolution import Differs, Gained, Same, compare, record_of
from storelink.contract.streams import SCOPE_ALL, Stream

HINT = "put the declaration right: contexts / HQ_CONTEXTS, the same file wherever hq runs"

_BUILT_IN = frozenset(context.name for context in BUILT_IN)
_record_of = lru_cache(record_of)

Entropy = Callable[[], int]
Query = Callable[..., list[tuple[Any, ...]]]
"""`Master.query`."""


@dataclass(frozen=True, slots=True)
class Reshape:
    """From the event behind `seq` on rows have further columns, in older rows `fill`; `digest` is of all rows then."""

    seq: int
    digest: str
    fill: Row


def streams(query: Query) -> list[tuple[Any, ...]]:
    """Each stream of the contexts that this process knows as the master does, by name."""
    found = query(
        "SELECT s.stream, s.epoch, s.head_seq, s.digest, s.rows, s.floor, c.columns FROM streams AS s"
        " LEFT JOIN contexts AS c ON c.name = substr(s.stream, 1, instr(s.stream, '/') - 1) ORDER BY s.stream"
    )
    return [tuple(row) for *row, record in found if _is_known(row[0].partition("/")[0], record)]


def left_out(query: Query) -> dict[str, str]:
    """The contexts that this process does not know as the master does, each with the reason."""
    found = {}
    for name, record in query("SELECT name, columns FROM contexts ORDER BY name"):
        if name not in CONTEXTS:
            found[name] = "the master has it, and it is not declared here"
            continue
        match compare(record, CONTEXTS[name]):
            case Differs(reason):
                found[name] = reason
            case Gained(columns):
                names = ", ".join(column.name for column in columns)
                found[name] = f"the next hq publish, import or run gives the master its further columns: {names}"
    return found


def check_known(query: Query, stream: Stream) -> None:
    """Raise ContextDiffers if the master's rows of a stream are not those that are declared here."""
    if stream.context in _BUILT_IN:
        return
    reason = left_out(query).get(stream.context)
    if reason is not None:
        raise ContextDiffers(f"{stream.context}: {reason}", hint=HINT)


def reshapes(query: Query, stream: Stream) -> list[Reshape]:
    """Each time that a stream's rows gained columns, in order."""
    if stream.context in _BUILT_IN:
        return []
    found = query("SELECT seq, digest, fill FROM reshapes WHERE stream = ? ORDER BY id", (str(stream),))
    return [Reshape(seq, digest, tuple(json.loads(fill))) for seq, digest, fill in found]


def is_due(db: sqlite3.Connection, *, gains: bool) -> bool:
    """Whether `take_in` would change something."""
    if db.execute("PRAGMA user_version").fetchone()[0] < schema.VERSION:
        return True
    records = dict(db.execute("SELECT name, columns FROM contexts"))
    return any(
        context.name not in records or (gains and not isinstance(compare(records[context.name], context), Same))
        for context in CONTEXTS.declared
    )


def take_in(db: sqlite3.Connection, entropy: Entropy, *, gains: bool) -> bool:
    """
    Make the tables of newly declared contexts; within a transaction.

    Args:
        gains: also give rows the columns that their context has gained.

    Returns:
        Whether there was anything to do.
    """
    if not is_due(db, gains=gains):
        return False
    if db.execute("PRAGMA user_version").fetchone()[0] < schema.VERSION:
        schema.upgrade(db)
    records = dict(db.execute("SELECT name, columns FROM contexts"))
    now_ms = time.time_ns() // 1_000_000
    for context in CONTEXTS.declared:
        match compare(records[context.name], context) if context.name in records else None:
            case None:
                _make(db, context, now_ms, entropy)
            case Gained(columns) if gains:
                _gain(db, context, [(c.name, schema.kind_of(c), c.default) for c in columns], now_ms, entropy)
            case Differs() if gains and _is_unused(db, context):
                db.execute(f"DROP TABLE [master_{context.name}]")
                _make(db, context, now_ms, entropy)
    return True


def _is_known(name: str, record: str | None) -> bool:
    context = CONTEXTS.get(name)
    return context is not None and (record is None or record == _record_of(context))


def _is_unused(db: sqlite3.Connection, context: Context) -> bool:
    """Whether nothing was ever published of a context: then it may still be declared otherwise."""
    return not any(head_seq for _, head_seq in _streams_of(db, context))


def _make(db: sqlite3.Connection, context: Context, now_ms: int, entropy: Entropy) -> None:
    schema.create_context(db, context)
    db.execute("INSERT OR REPLACE INTO contexts(name, columns) VALUES(?, ?)", (context.name, record_of(context)))
    db.execute(
        "INSERT OR IGNORE INTO streams VALUES(?, '', 0, ?, 0, 0, ?)", (f"{context.name}/{SCOPE_ALL}", EMPTY, now_ms)
    )
    for stream, _ in _streams_of(db, context):
        _begin(db, stream, EMPTY, now_ms, entropy)


def _gain(
    db: sqlite3.Connection, context: Context, columns: Sequence[tuple[str, str, object]], now_ms: int, entropy: Entropy
) -> None:
    table = f"[master_{context.name}]"
    for name, kind, default in columns:
        db.execute(f"ALTER TABLE {table} ADD COLUMN [{name}] {kind}")
        if default is not None:
            db.execute(f"UPDATE {table} SET [{name}] = ? WHERE deleted = 0", (default,))
    db.execute("UPDATE contexts SET columns = ? WHERE name = ?", (record_of(context), context.name))
    fill = json.dumps([default for *_, default in columns])
    for stream, head_seq in _streams_of(db, context):
        digest = to_hex(total(db.execute(schema.statements(context).live, (stream.scope,))))
        _begin(db, stream, digest, now_ms, entropy)
        db.execute(
            "INSERT INTO reshapes(stream, seq, digest, fill, at_ms) VALUES(?, ?, ?, ?, ?)",
            (str(stream), head_seq, digest, fill, now_ms),
        )


def _streams_of(db: sqlite3.Connection, context: Context) -> list[tuple[Stream, int]]:
    found = db.execute("SELECT stream, head_seq FROM streams ORDER BY stream").fetchall()
    return [(Stream.parse(name), seq) for name, seq in found if name.startswith(f"{context.name}/")]


def _begin(db: sqlite3.Connection, stream: Stream, digest: str, now_ms: int, entropy: Entropy) -> None:
    db.execute(
        "UPDATE streams SET epoch = ?, digest = ?, updated_at_ms = ? WHERE stream = ?",
        (epochs.begin(db, str(stream), now_ms, entropy), digest, now_ms, str(stream)),
    )
