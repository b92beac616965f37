"""The replica's tables and views of the built-in contexts: the readers' interface.

Views are joins without aggregates and windows, so that SQLite takes them apart inside a reader's own query: a
lookup by sku or gtin is a search in an index, also through `catalog`. No STRICT tables, no `->>`: tills may
read with an old SQLite.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING

from storelink.contract.contexts import BUILT_IN, PRICE, PRODUCT
from storelink.contract.limits import SEQ_MAX
from storelink.contract.precedence import PRECEDENCE, REGULAR, Criterion
from storelink.host.sqlite import database
from storenode.replica import price_clock, search_index

if TYPE_CHECKING:
    pass

APPLICATION_ID = 0x53745265
"""Marks an SQLite file as a replica ("StRe")."""

VERSION = 5
"""
To be raised with every change of a declaration here, of a view, too. A backup is restored by its own version; a
replica of another version is replaced as a damaged one is.
"""

STALE_AFTER_S = 30
"""Silence after which a stream that was live counts as offline: six heartbeats of HQ."""

OWN = "@"
"""Before the store's id it makes the scope of its own lines, which no stream's can be; the views leave it out."""

OWN_RANK = 1_000_000

NOW_S = price_clock.NOW_S
NOW_MS = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


GTIN_INDEX = f"CREATE INDEX {PRODUCT.table}_gtin ON {PRODUCT.table}(gtin) WHERE gtin IS NOT NULL"
"""Products without one cost nothing."""


def create(connection: sqlite3.Connection) -> None:
    """Make all tables and views; the caller's transaction holds them."""
    db = database(connection)
    for context in BUILT_IN.values():
        columns: dict[str, type] = {"scope": str}
        columns |= dict.fromkeys((*context.key_names, *context.value_names), str)
        table = db.table(context.table)
        table.create(
            columns | {"seq": int},
            pk=(*context.key_names, "scope"),
            not_null={"scope", *context.key_names, "seq"},
        )
    connection.execute(GTIN_INDEX)
    db.table("scopes").create({"scope": str, "rank": int}, pk="scope")
    db.table("streams").create(
        {
            "stream": str,
            "epoch": str,
            "position": int,
            "digest": str,
            "head_seq": int,
            "state": str,
            "as_of_ms": int,
            "verified_at_ms": int,
            "verified_ok": int,
            "quarantined": int,
            "rebuild_due": str,  # why the rows are to be fetched anew, until they are
            "rebuilt_at_ms": int,
            "rebuild_reason": str,  # why they last were
            "refusal": str,  # the message of HQ's that is refused again and again, as JSON
        },
        pk="stream",
        defaults={"position": 0, "head_seq": 0, "quarantined": 0, "state": "bootstrapping"},
    )
    db.table("daemon").create(
        {
            "id": int,
            "store_id": str,
            "pid": int,
            "connected": int,
            "started_at_ms": int,
            "seen_at_ms": int,
            "counters": str,
        },
        pk="id",
    )
    search_index.create(connection)
    # `row`: the version that is held, as canonical JSON; `key`: a JSON array.
    db.table("quarantine").create(
        {"stream": str, "key": str, "seq": int, "row": str, "reason": str, "at_ms": int},
        pk=("stream", "key"),
        not_null={"stream", "key", "seq", "row", "reason", "at_ms"},
    )
    # This store's overrides, copied from its outbox; what the views read of them is in `prices`.
    db.table("overrides").create(
        {
            "sku": str,
            "amount_minor": int,
            "currency": str,
            "starts_at": int,
            "ends_at": int,
            "until": int,
            "reason": str,
            "set_at_ms": int,
            "seq": int,
            "changed_seq": int,
        },
        pk=("sku", "seq"),
    )
    # Streams that were followed, and whose rows serve until others take their place: storenode/replica/streams.py.
    db.table("unfollowed_streams").create(
        {
            "stream": str,
            "epoch": str,
            "position": int,
            "digest": str,
            "head_seq": int,
            "rebuild_due": str,
            "quarantined": int,
        },
        pk="stream",
    )
    # Where a row's seq came from: storenode/replica/provenance.py.
    connection.execute(
        "CREATE TABLE commits (stream TEXT NOT NULL, how TEXT NOT NULL, last_seq INTEGER NOT NULL,"
        " first_seq INTEGER NOT NULL, epoch TEXT NOT NULL, digest TEXT NOT NULL, published_at_ms INTEGER,"
        " received_at_ms INTEGER NOT NULL, applied_at_ms INTEGER NOT NULL,"
        " PRIMARY KEY (stream, how, last_seq)) WITHOUT ROWID"
    )
    price_clock.create_table(db)
    renew_views(connection)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def renew_views(connection: sqlite3.Connection) -> None:
    """Make the views what they are in this version, whatever a bad disk has made of them."""
    db = database(connection)
    price_clock.create_view(db)
    db.create_view("current_prices", price_at_sql(NOW_S), replace=True)
    db.create_view("catalog", CATALOG, replace=True)
    db.create_view("freshness", FRESHNESS, replace=True)


_SCOPE = f"ltrim(r.scope, '{OWN}') AS scope"


def price_at_sql(now: str) -> str:
    """Return the SELECT of every sku's price in force at `now`, an SQL expression in seconds since 1970; one row a sku.

    Which price wins: storelink/contract/precedence.py.
    """
    return f"""
SELECT r.sku, {_amount("step")} AS amount_minor, r.currency, r.kind, {_SCOPE},
       {_time(_starts("step"))} AS starts_at, {_time(_ends("step"))} AS ends_at
FROM {PRICE.table} AS r JOIN json_each(r.schedule) AS step ON {_covers("step", now)}
WHERE r.rowid = ({_winner("r.sku", now)})"""


def _starts(step: str) -> str:
    return f"json_extract({step}.value, '$[0]')"


def _ends(step: str) -> str:
    return f"json_extract({step}.value, '$[1]')"


def _amount(step: str) -> str:
    return f"json_extract({step}.value, '$[2]')"


# In SQL, for `line`, `place` and `at` of `_winner`; the best first.
_ORDER: Mapping[Criterion, str] = {
    Criterion.SCOPE: "place.rank DESC",
    Criterion.KIND: f"line.kind <> '{REGULAR}' DESC",
    Criterion.LATEST_START: f"{_starts('at')} DESC",
    Criterion.LOWEST_AMOUNT: _amount("at"),
    Criterion.KIND_NAME: "line.kind",
}


def _winner(sku: str, now: str) -> str:
    """The rowid of the price line in force for one sku."""
    return f"""
  SELECT line.rowid
  FROM {PRICE.table} AS line JOIN scopes AS place ON place.scope = line.scope
       JOIN json_each(line.schedule) AS at ON {_covers("at", now)}
  WHERE line.sku = {sku}
  ORDER BY {", ".join(_ORDER[criterion] for criterion in PRECEDENCE)}
  LIMIT 1"""


def product_winner(sku: str) -> str:
    """The rowid of the product row that counts for one sku: the most specific scope's."""
    return f"""
  SELECT entry.rowid FROM {PRODUCT.table} AS entry JOIN scopes AS place ON place.scope = entry.scope
  WHERE entry.sku = {sku} ORDER BY place.rank DESC LIMIT 1"""


def _covers(step: str, now: str) -> str:
    # BETWEEN names `now` once, and the plus keeps SQLite from taking it apart: each mention costs 20 us to prepare.
    return f"+({now} BETWEEN {_starts(step)} AND coalesce({_ends(step)} - 1, {SEQ_MAX}))"


def _time(seconds: str) -> str:
    return f"strftime('%Y-%m-%dT%H:%M:%SZ', {seconds}, 'unixepoch')"


_PRODUCT_FIELDS = ", ".join(f"p.{name}" for name in PRODUCT.value_names)

# `current_prices` is written out here: SQLite cannot search a view on the right of a LEFT JOIN, it would compute
# every price for one lookup.
CATALOG = f"""
SELECT p.sku, {_PRODUCT_FIELDS},
       {_amount("step")} AS amount_minor, r.currency, r.kind, {_SCOPE},
       {_time(_starts("step"))} AS starts_at, {_time(_ends("step"))} AS ends_at
FROM {PRODUCT.table} AS p
     LEFT JOIN {PRICE.table} AS r ON r.rowid = ({_winner("p.sku", NOW_S)})
     LEFT JOIN json_each(r.schedule) AS step ON {_covers("step", NOW_S)}
WHERE p.rowid = ({product_winner("p.sku")})"""

# `live` is believed while HQ is heard; a catch-up may take longer than that, so it is believed while the daemon works.
FRESHNESS = f"""
SELECT s.stream,
       CASE WHEN s.verified_ok = 0 AND s.state <> 'rebuilding' THEN 'diverged'
            WHEN coalesce({NOW_MS} - CASE s.state WHEN 'live' THEN s.as_of_ms
                                                  WHEN 'catching_up' THEN d.seen_at_ms
                                                  ELSE {NOW_MS} END > {STALE_AFTER_S * 1000}, 1)
            THEN 'offline' ELSE s.state END AS state,
       s.position, s.head_seq, max(s.head_seq - s.position, 0) AS lag_events,
       {_time("s.as_of_ms / 1000")} AS as_of,
       max(({NOW_MS} - s.as_of_ms) / 1000, 0) AS stale_seconds,
       (SELECT {price_clock.verdict()} FROM clock WHERE id = 1) AS clock
FROM streams AS s LEFT JOIN daemon AS d ON d.id = 1"""
