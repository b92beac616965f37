"""What commands and the API read from a replica, on a read-only connection; works with the daemon dead or hung."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from storelink.contract.contexts import Context, Contexts
from storelink.contract.schedule import load
from storelink.contract.streams import Stream
from storelink.contract.times import rfc3339
from storenode.errors import BadArgument, NotFound, StorenodeError
from storenode.replica import price_clock, schema
from storenode.replica.contexts import RESTART, columns_of
from storenode.replica.file import Source, reading

SEARCH_WORDS_MAX = 16
SEARCH_SPARE = 8
"""Matches looked at for one product shown: those of a wider scope fall away behind a more specific one."""


def price_now_ms(path: Source) -> int:
    """The time that prices go by, since 1970; without a replica, or before HQ was heard, the clock."""
    wall_ms = time.time_ns() // 1_000_000
    try:
        with reading(path) as db:
            now_s: int = db.execute(f"SELECT {price_clock.NOW_S}").fetchone()[0]
    except StorenodeError:
        return wall_ms
    return wall_ms if abs(now_s - wall_ms // 1000) <= 1 else now_s * 1000


def streams(path: Path, contexts: Contexts) -> list[Stream]:
    """The streams that the replica follows, of the contexts that are declared here."""
    with reading(path) as db:
        return streams_in(db, contexts)


def streams_in(db: sqlite3.Connection, contexts: Contexts) -> list[Stream]:
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

    Any text is harmless: words go into the index's query language quoted. A product that has just changed may
    still be found by its old words.
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


def search_context(path: Source, context: Context, text: str, limit: int) -> list[dict[str, Any]]:
    """
    Rows in whose searchable columns every word of `text` begins a word, the best matches first.

    Of an entity with rows in several scopes only the most specific one's counts. Raises BadArgument if the
    declaration names no columns to search.
    """
    if not context.search:
        raise BadArgument(f"{context.name} has no column to search", hint="declare them: search = [...]")
    query = query_of(text)
    if not query:
        return []
    same = " AND ".join(f"other.{name} = t.{name}" for name in context.key_names)
    with reading(path) as db:
        columns = columns_of(db, context)
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (f"{context.table}_search",)).fetchone() is None:
            raise NotFound(f"this replica has no index of {context.name} yet", hint=RESTART)
        found = db.execute(
            f"SELECT t.scope, {', '.join('t.' + name for name in columns)}"
            f" FROM {context.table}_search(?) AS f JOIN {context.table} AS t ON t.rowid = f.rowid"
            f" WHERE t.rowid = (SELECT other.rowid FROM {context.table} AS other JOIN scopes USING (scope)"
            f" WHERE {same} ORDER BY scopes.rank DESC LIMIT 1) ORDER BY f.rank LIMIT ?",
            (query, limit),
        ).fetchall()
    return [dict(zip(("scope", *columns), row, strict=True)) for row in found]
