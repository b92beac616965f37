"""This store's own prices in the replica: the table `overrides`, whose one writer this is, and their price lines.

An override is a line of the table `prices` like any other, of the kind `override`, in a scope that no stream can have
and that wins over all. So the views need no second place to look, and a lookup no second index. The table `overrides`
says why. The outbox's file, which has the originals, has a table of the same columns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from itertools import groupby

from storelink.contract import schedule
from storelink.contract.contexts import PRICE, Row
from storelink.contract.limits import STEPS_MAX
from storelink.contract.schedule import Step
from storelink.host.sqlite import transaction
from storenode.core.precedence import OVERRIDE
from storenode.replica.schema import OWN, OWN_RANK
from storenode.replica.streams import rank_own_scope
from storenode.replica.writer import remove_rows, write_rows

COLUMNS = "sku, amount_minor, currency, starts_at, ends_at, until, reason, set_at_ms, seq, changed_seq"


@dataclass(frozen=True, slots=True)
class Override:
    """One price of the store's own; times in seconds since 1970 but for `set_at_ms`.

    `seq`: the outbox's entry that told HQ of it; `changed_seq`: the one that ended it early, or else the same.
    """

    sku: str
    amount_minor: int
    currency: str
    starts_at: int
    ends_at: int
    until: int
    reason: str
    set_at_ms: int
    seq: int
    changed_seq: int

    def holds(self, at_s: int) -> bool:
        return self.starts_at <= at_s < self.ends_at


def read(db: sqlite3.Connection) -> list[Override]:
    """All that are kept, by sku and time, of an outbox's file or of a replica."""
    return [Override(*row) for row in db.execute(f"SELECT {COLUMNS} FROM overrides ORDER BY sku, seq")]


def copy(replica: sqlite3.Connection, rows: Sequence[Override], store_id: str) -> bool:
    """Make the replica's overrides equal to `rows`, in one transaction; False if they were."""
    scope = OWN + store_id
    there = replica.execute("SELECT scope FROM scopes WHERE rank = ?", (OWN_RANK,)).fetchall()
    before, after = _by_sku(read(replica)), _by_sku(rows)
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


def price_lines(rows: Iterable[Override], scope: str) -> list[tuple[str | int, ...]]:
    """What readers' views get of overrides that are sorted by sku: a line `(scope, sku, kind, currency, ...)` a sku."""
    found: list[tuple[str | int, ...]] = []
    for sku, each in _by_sku(rows).items():
        held = sorted((r for r in each if r.starts_at < r.ends_at), key=lambda r: r.starts_at)
        if held:
            # A price line has one currency; what was sold in another before is left out.
            steps = [Step(r.starts_at, r.ends_at, r.amount_minor) for r in held if r.currency == held[-1].currency]
            dumped = schedule.dump(tuple(steps[-STEPS_MAX:]))
            found.append((scope, sku, OVERRIDE, held[-1].currency, dumped, held[-1].seq))
    return found


def _rewrite(replica: sqlite3.Connection, sku: str, rows: Sequence[Override], scope: str) -> None:
    replica.execute("DELETE FROM overrides WHERE sku = ?", (sku,))
    marks = ", ".join("?" * len(COLUMNS.split(",")))
    replica.executemany(f"INSERT INTO overrides({COLUMNS}) VALUES({marks})", [astuple(row) for row in rows])
    lines: list[Row] = [(seq, *line) for _, *line, seq in price_lines(rows, scope)]
    write_rows(replica, PRICE, scope, lines, [] if lines else [(0, sku, OVERRIDE)])


def _by_sku(rows: Iterable[Override]) -> dict[str, list[Override]]:
    return {sku: list(each) for sku, each in groupby(rows, key=lambda row: row.sku)}
