"""This store's own prices in the replica: the table `overrides`, whose one writer this is, and their price lines.

An override is a line of the table `prices` like any other, of the kind `override`, in a scope that no stream can have
and that wins over all. So the views need no second place to look, and a lookup no second index. The table `overrides`
says why. The outbox's file, which has the originals, has a table of the same columns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import astuple

from storelink.contract.contexts import PRICE, Row
from storelink.contract.precedence import OVERRIDE
from storelink.host.sqlite import transaction
from storenode.core.overrides import COLUMNS, Override, by_sku, price_lines
from storenode.replica.schema import OWN, OWN_RANK
from storenode.replica.streams import rank_own_scope
from storenode.replica.writer import remove_rows, write_rows


def read(db: sqlite3.Connection) -> list[Override]:
    """All that the replica has, by sku and time."""
    return [Override(*row) for row in db.execute(f"SELECT {COLUMNS} FROM overrides ORDER BY sku, seq")]


def copy(replica: sqlite3.Connection, rows: Sequence[Override], store_id: str) -> bool:
    """Make the replica's overrides equal to `rows`, in one transaction; False if they were."""
    scope = OWN + store_id
    there = replica.execute("SELECT scope FROM scopes WHERE rank = ?", (OWN_RANK,)).fetchall()
    before, after = by_sku(read(replica)), by_sku(rows)
    renamed = bool(before or after) and there != [(scope,)]
    skus = sorted(s for s in before.keys() | after.keys() if renamed or before.get(s) != after.get(s))
    if not renamed and not skus:
        return False
    with transaction(replica):
        rank_own_scope(replica, scope)
        if renamed:
            for (old,) in there:
                remove_rows(replica, PRICE, old)
        for sku in skus:
            _rewrite(replica, sku, after.get(sku, []), scope)
    return True


def forget(replica: sqlite3.Connection) -> None:
    """Remove all of them, within the caller's transaction: the file is another machine's, or an earlier time's."""
    replica.execute("DELETE FROM overrides")
    own = replica.execute("SELECT DISTINCT scope FROM prices WHERE substr(scope, 1, 1) = ?", (OWN,)).fetchall()
    for (scope,) in own:
        remove_rows(replica, PRICE, scope)
    rank_own_scope(replica, None)


def _rewrite(replica: sqlite3.Connection, sku: str, rows: Sequence[Override], scope: str) -> None:
    replica.execute("DELETE FROM overrides WHERE sku = ?", (sku,))
    marks = ", ".join("?" * len(COLUMNS.split(",")))
    replica.executemany(f"INSERT INTO overrides({COLUMNS}) VALUES({marks})", [astuple(row) for row in rows])
    lines: list[Row] = [(seq, *line) for _, *line, seq in price_lines(rows, scope)]
    write_rows(replica, PRICE, scope, lines, [] if lines else [(0, sku, OVERRIDE)])
