"""The context migration: a table for each newly declared context, and further columns for one that has gained some.

The only module that writes the tables `contexts` and `reshapes`. The master records which columns the rows of each
declared context have. A process whose declaration is another leaves that context alone, and goes on with the rest.
When columns are gained, every stream of the context begins a new epoch at the same seq, with the digest of the longer
rows; `reshapes` keeps what the log needs to be replayed across it.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hq.core.changes import check_row_bytes
from hq.errors import ContextDiffers
from hq.master import rows, schema, streams
from hq.master.streams import Entropy, Query
from storelink.contract.contexts import (
    BUILT_IN,
    Column,
    Context,
    Contexts,
    Differs,
    Gained,
    Row,
    Same,
    compare,
    record_of,
)
from storelink.contract.errors import ContractViolation
from storelink.contract.rows import canonical, to_hex, total
from storelink.contract.streams import SCOPE_ALL, Stream

_STREAMS = (
    "SELECT s.stream, s.epoch, s.head_seq, s.digest, s.rows, s.floor, c.columns FROM streams AS s"
    " LEFT JOIN contexts AS c ON c.name = substr(s.stream, 1, instr(s.stream, '/') - 1)"
)

HINT = "put the declaration right: contexts / HQ_CONTEXTS, the same file wherever hq runs"

_record_of = lru_cache(record_of)


@dataclass(frozen=True, slots=True)
class Reshape:
    """From the event behind `seq` on rows have further columns, in older rows `fill`; `digest` is of all rows then."""

    seq: int
    digest: str
    fill: Row


def known_streams(query: Query, contexts: Contexts) -> list[tuple[Any, ...]]:
    """Each stream of the contexts that this process knows as the master does, by name."""
    found = query(f"{_STREAMS} ORDER BY s.stream")
    return [tuple(row) for *row, record in found if _is_known(contexts.get(row[0].partition("/")[0]), record)]


def known_stream(query: Query, contexts: Contexts, stream: str) -> tuple[Any, ...] | None:
    """One stream, by its name; None if there is none, or its context is not known here as the master knows it."""
    found = query(f"{_STREAMS} WHERE s.stream = ?", (stream,))
    known = [tuple(row) for *row, record in found if _is_known(contexts.get(stream.partition("/")[0]), record)]
    return known[0] if known else None


def changed_streams(query: Query, contexts: Contexts, since: int) -> list[tuple[int, bool, tuple[Any, ...]]]:
    """Each stream that changed after the change `since`, by name: its own change, whether it is known, its columns."""
    found = query(
        f"{_STREAMS.replace(' FROM', ', s.changed FROM', 1)} WHERE s.changed > ? ORDER BY s.changed", (since,)
    )
    return [
        (changed, _is_known(contexts.get(row[0].partition("/")[0]), record), tuple(row))
        for *row, record, changed in sorted(found)
    ]


def left_out(query: Query, contexts: Contexts) -> dict[str, str]:
    """The contexts that this process does not know as the master does, each with the reason."""
    found = {}
    for name, record in query("SELECT name, columns FROM contexts ORDER BY name"):
        reason = _reason(record, contexts.get(name))
        if reason is not None:
            found[name] = reason
    return found


def check_known(query: Query, stream: Stream) -> None:
    """Raise ContextDiffers if the master's rows of a stream are not those that are declared here."""
    context = stream.context
    if context.is_built_in:
        return
    found = query("SELECT columns FROM contexts WHERE name = ?", (context.name,))
    reason = _reason(found[0][0], context) if found else None
    if reason is not None:
        raise ContextDiffers(f"{context.name}: {reason}", hint=HINT)


def reshapes(query: Query, stream: str) -> list[Reshape]:
    """Each time that a stream's rows gained columns, in order; `stream`: its name."""
    if stream.partition("/")[0] in BUILT_IN:
        return []
    found = query("SELECT seq, digest, fill FROM reshapes WHERE stream = ? ORDER BY id", (stream,))
    return [Reshape(seq, digest, tuple(json.loads(fill))) for seq, digest, fill in found]


def is_due(db: sqlite3.Connection, contexts: Contexts, *, gains: bool) -> bool:
    """Whether `migrate` would change something."""
    records = dict(db.execute("SELECT name, columns FROM contexts"))
    return any(
        context.name not in records or (gains and not isinstance(compare(records[context.name], context), Same))
        for context in contexts.declared
    )


def migrate(db: sqlite3.Connection, contexts: Contexts, entropy: Entropy, *, gains: bool) -> bool:
    """
    Make the tables of newly declared contexts; within a transaction.

    Args:
        gains: also give rows the columns that their context has gained.

    Returns:
        Whether there was anything to do.
    """
    if not is_due(db, contexts, gains=gains):
        return False
    records = dict(db.execute("SELECT name, columns FROM contexts"))
    wall_ms = time.time_ns() // 1_000_000
    for context in contexts.declared:
        match compare(records[context.name], context) if context.name in records else None:
            case None:
                _make(db, context, wall_ms, entropy)
            case Gained(columns) if gains:
                _gain(db, context, columns, wall_ms, entropy)
            case Differs() if gains and _is_unused(db, context):
                db.execute(f"DROP TABLE [master_{context.name}]")
                _make(db, context, wall_ms, entropy)
    return True


def _reason(record: str, context: Context | None) -> str | None:
    """Why a context is left out, by the master's record of it and its declaration here; None if it is not."""
    if context is None:
        return "the master has it, and it is not declared here"
    match compare(record, context):
        case Differs(reason):
            return reason
        case Gained(columns):
            names = ", ".join(column.name for column in columns)
            return f"the next hq publish, import or run gives the master its further columns: {names}"
        case _:
            return None


def _is_known(context: Context | None, record: str | None) -> bool:
    return context is not None and (record is None or record == _record_of(context))


def _is_unused(db: sqlite3.Connection, context: Context) -> bool:
    """Whether nothing was ever published of a context: then it may still be declared otherwise."""
    return not any(head_seq for _, head_seq in _streams_of(db, context))


def _make(db: sqlite3.Connection, context: Context, wall_ms: int, entropy: Entropy) -> None:
    """Make a context's table and its chain-wide stream; streams that were never published in begin anew."""
    schema.create_context(db, context)
    db.execute("INSERT OR REPLACE INTO contexts(name, columns) VALUES(?, ?)", (context.name, record_of(context)))
    there = [str(stream) for stream, _ in _streams_of(db, context)]
    for name in there:
        streams.begin_epoch(db, name, wall_ms, entropy)
    if f"{context.name}/{SCOPE_ALL}" not in there:
        streams.add(db, f"{context.name}/{SCOPE_ALL}", wall_ms, entropy)


def _gain(db: sqlite3.Connection, context: Context, columns: Sequence[Column], wall_ms: int, entropy: Entropy) -> None:
    for column in columns:
        schema.add_column(db, context, column)
        rows.fill(db, context, column)
    db.execute("UPDATE contexts SET columns = ? WHERE name = ?", (record_of(context), context.name))
    filled = json.dumps([column.default for column in columns])
    for stream, head_seq in _streams_of(db, context):
        digest = to_hex(total(_that_fit(context, db.execute(rows.statements(context).live, (stream.scope,)))))
        streams.begin_epoch(db, str(stream), wall_ms, entropy)
        streams.set_digest(db, str(stream), digest, wall_ms)
        db.execute(
            "INSERT INTO reshapes(stream, seq, digest, fill, at_ms) VALUES(?, ?, ?, ?, ?)",
            (str(stream), head_seq, digest, filled, wall_ms),
        )


def _that_fit(context: Context, found: Iterable[Row]) -> Iterator[Row]:
    """The rows, each checked: what a context gains must not make one larger than what can be published."""
    for row in found:
        try:
            check_row_bytes(str(list(context.key_of(row))), len(canonical(row)))
        except ContractViolation as violation:
            problem = f"{context.name}: with the columns that it has gained, {violation.detail}"
            hint = "declare a shorter default for the further columns, or none"
            raise ContextDiffers(problem, hint=hint) from violation
        yield row


def _streams_of(db: sqlite3.Connection, context: Context) -> list[tuple[Stream, int]]:
    between = (f"{context.name}/", f"{context.name}0")  # "0" follows "/"
    sql = "SELECT stream, head_seq FROM streams WHERE stream >= ? AND stream < ? ORDER BY stream"
    return [(Stream(context, name.partition("/")[2]), seq) for name, seq in db.execute(sql, between).fetchall()]
