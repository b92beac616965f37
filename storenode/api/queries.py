"""The queries of the API, each in one snapshot of a read-only connection."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from storelink.contract.contexts import PRODUCT, Contexts
from storenode.api.limits import SAME_GTIN_MAX
from storenode.core import states
from storenode.core.clock_rules import UNCONFIRMED
from storenode.errors import NotFound
from storenode.replica import queries as replica_queries
from storenode.replica import schema
from storenode.replica.status import daemon_alive

_BY_GTIN = (
    f"SELECT p.sku FROM {PRODUCT.table} AS p WHERE p.gtin = ? AND p.rowid = ({schema.product_winner('p.sku')})"
    f" ORDER BY p.sku LIMIT {SAME_GTIN_MAX}"
)
_FRESHNESS = (
    "SELECT f.stream, f.clock, f.state, f.position, f.head_seq, f.lag_events, f.as_of, f.stale_seconds, s.epoch,"
    " s.verified_ok FROM freshness AS f JOIN streams AS s ON s.stream = f.stream ORDER BY f.stream"
)
_SHOWN = ("state", "position", "head_seq", "lag_events", "as_of", "stale_seconds")


def product(db: sqlite3.Connection, sku: str) -> dict[str, Any]:
    """One product's row with its `price` now, or null. Raises NotFound."""
    return replica_queries.get(db, PRODUCT, (sku,)) | {"price": _price_or_none(db, sku)}


def products_by_gtin(db: sqlite3.Connection, gtin: str) -> dict[str, Any]:
    """The products that bear a gtin, by sku."""
    skus = db.execute(_BY_GTIN, (gtin,)).fetchall()
    return {"products": [product(db, sku) for (sku,) in skus]}


def price(db: sqlite3.Connection, sku: str, at_s: int | None) -> dict[str, Any]:
    """The price in force now or at a time. Raises NotFound."""
    return replica_queries.price(db, sku, at_s)


def search(db: sqlite3.Connection, text: str, limit: int) -> dict[str, Any]:
    """The products that a search finds."""
    return {"products": replica_queries.search(db, text, limit)}


def freshness(db: sqlite3.Connection, path: Path, contexts: Contexts) -> dict[str, Any]:
    """State of the store, of its clock and of each stream; `live` ends with the daemon, as in `storenode status`."""
    alive, clock = daemon_alive(path), UNCONFIRMED
    streams, judged = {}, {}
    for name, verdict, *values in db.execute(_FRESHNESS):
        if name.partition("/")[0] not in contexts:
            continue
        clock = verdict
        *shown, epoch, verified = values
        stream = dict(zip(_SHOWN, shown, strict=True))
        if not alive and stream["state"] in ("live", "catching_up"):
            stream["state"] = "offline"
        streams[name] = stream
        judged[name] = stream | {"epoch": epoch, "verified_ok": None if verified is None else bool(verified)}
    return {"state": states.overall(judged), "clock": clock, "streams": streams}


def _price_or_none(db: sqlite3.Connection, sku: str) -> dict[str, Any] | None:
    try:
        return replica_queries.price(db, sku, None)
    except NotFound:
        return None
