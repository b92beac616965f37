"""The replica's tables and views, made from the declarations in `contract.contexts`: the readers' interface."""

from __future__ import annotations

import sqlite3
from functools import lru_cache

import sqlite_utils

from contract.contexts import CONTEXTS, PRICE, PRODUCT, Context

APPLICATION_ID = 0x53745265
"""Marks an SQLite file as a replica ("StRe")."""

VERSION = 1
STALE_AFTER_S = 30
"""Silence after which a stream that was live counts as offline: six heartbeats of HQ."""

NOW_S = "CAST(strftime('%s', 'now') AS INTEGER)"
NOW_MS = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


def create(connection: sqlite3.Connection) -> None:
    """Make all tables and views; the caller's transaction holds them."""
    db = sqlite_utils.Database(connection, execute_plugins=False)
    for context in CONTEXTS.values():
        columns: dict[str, type] = {"scope": str}
        columns |= dict.fromkeys((*context.key_names, *context.value_names), str)
        table = db.table(context.table)
        table.create(
            columns | {"seq": int},
            pk=(*context.key_names, "scope"),
            not_null={"scope", *context.key_names, "seq"},
        )
    db.table(PRODUCT.table).create_index(["gtin"])
    db.table("scopes").create({"scope": str, "rank": int}, pk="scope")
    db.table("streams").create(
        {
            "stream": str, "epoch": str, "position": int, "digest": str, "head_seq": int, "state": str,
            "as_of_ms": int, "verified_at_ms": int, "verified_ok": int, "quarantined": int,
        },
        pk="stream",
        defaults={"position": 0, "head_seq": 0, "quarantined": 0, "state": "bootstrapping"},
    )  # fmt: skip
    db.table("daemon").create(
        {
            "id": int, "store_id": str, "pid": int, "connected": int, "started_at_ms": int, "seen_at_ms": int,
            "counters": str,
        },
        pk="id",
    )  # fmt: skip
    db.create_view("current_prices", price_at_sql(NOW_S))
    db.create_view("catalog", CATALOG)
    db.create_view("freshness", FRESHNESS)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def price_at_sql(now: str) -> str:
    """One row a sku: the price in force at `now`, an SQL expression in seconds since 1970.

    Precedence: the most specific scope, then promotion and clearance over regular, then the latest start.
    """
    return f"""
SELECT sku, amount_minor, currency, kind, scope,
       strftime('%Y-%m-%dT%H:%M:%SZ', starts, 'unixepoch') AS starts_at,
       strftime('%Y-%m-%dT%H:%M:%SZ', ends, 'unixepoch') AS ends_at
FROM (
  SELECT p.sku, json_extract(step.value, '$[2]') AS amount_minor, p.currency, p.kind, p.scope,
         json_extract(step.value, '$[0]') AS starts, json_extract(step.value, '$[1]') AS ends,
         row_number() OVER (
           PARTITION BY p.sku
           ORDER BY s.rank DESC, p.kind = 'regular', json_extract(step.value, '$[0]') DESC, p.kind
         ) AS place
  FROM {PRICE.table} p
  JOIN scopes s ON s.scope = p.scope
  JOIN json_each(p.schedule) step
  WHERE json_extract(step.value, '$[0]') <= {now}
    AND (json_extract(step.value, '$[1]') IS NULL OR json_extract(step.value, '$[1]') > {now})
)
WHERE place = 1"""  # noqa: S608 - declared names


_PRODUCT_FIELDS = ", ".join(f"p.{name}" for name in PRODUCT.value_names)

CATALOG = f"""
SELECT p.sku, {_PRODUCT_FIELDS}, c.amount_minor, c.currency, c.kind, c.scope, c.starts_at, c.ends_at
FROM {PRODUCT.table} p
JOIN scopes s ON s.scope = p.scope
LEFT JOIN current_prices c ON c.sku = p.sku
WHERE NOT EXISTS (
  SELECT 1 FROM {PRODUCT.table} q JOIN scopes t ON t.scope = q.scope WHERE q.sku = p.sku AND t.rank > s.rank
)"""  # noqa: S608 - declared names

FRESHNESS = f"""
SELECT stream,
       CASE WHEN state IN ('live', 'catching_up') AND {NOW_MS} - as_of_ms > {STALE_AFTER_S * 1000}
            THEN 'offline' ELSE state END AS state,
       position, head_seq, max(head_seq - position, 0) AS lag_events,
       strftime('%Y-%m-%dT%H:%M:%SZ', as_of_ms / 1000, 'unixepoch') AS as_of,
       max(({NOW_MS} - as_of_ms) / 1000, 0) AS stale_seconds
FROM streams"""  # noqa: S608 - constants


@lru_cache
def upsert_sql(context: Context) -> str:
    """Write wire rows `(seq, *keys, *values)`; the scope is bound last."""
    names = (*context.columns, "scope")
    updates = ", ".join(f"{n} = excluded.{n}" for n in ("seq", *context.value_names))
    return (
        f"INSERT INTO {context.table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608
        f" ON CONFLICT ({', '.join(context.key_names)}, scope) DO UPDATE SET {updates}"
    )


@lru_cache
def delete_sql(context: Context) -> str:
    """Delete by `(*keys, scope)`."""
    where = " AND ".join(f"{n} = ?" for n in context.key_names)
    return f"DELETE FROM {context.table} WHERE {where} AND scope = ?"  # noqa: S608 - declared names


@lru_cache
def scan_sql(context: Context) -> str:
    """The wire rows of one scope."""
    return f"SELECT {', '.join(context.columns)} FROM {context.table} WHERE scope = ?"  # noqa: S608 - declared names
