"""What this store's labels were last told of each price, so that every look finds just the prices that changed.

A file of its own beside the replica (`replica.db.told`), derived: without it nothing is told of what changed meanwhile,
and it begins anew from the prices as they are. It sees whatever changes a price: a step that starts or ends (`next_s`
is an index over the instants to come), a row that HQ changed (its seq lies behind `seen`), a line that was deleted
(`lines`), a price of the store's own, a rebuilt replica. A look costs what changed, not what there is: 50,000 prices
that stand still cost two lookups.

Debts: `owed` to the store's hook, `unsent` to HQ. A debt is paid off after the deed, so a crash in between has it done
again: at least once. One `Told` a process; any thread may call, one at a time.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storelink.contract.contexts import PRICE
from storelink.host.sqlite import transaction
from storenode.core.overrides import OVERRIDE
from storenode.jobs.price_changes_file import opened
from storenode.replica import schema

SLICE_ROWS = 5_000
"""Prices of one transaction of a look."""

FILLED = 1
"""`user_version` of a file that has had every price once; before that nothing is owed to anybody."""

FIELDS = ("amount_minor", "currency", "kind", "scope", "starts_at", "ends_at")
_FIELDS = ", ".join(FIELDS)
_DIFFERS = " OR ".join(f"t.{n} IS NOT f.{n}" for n in ("amount_minor", "currency", "kind"))

_START, _END = "json_extract(s.value, '$[0]')", "json_extract(s.value, '$[1]')"
_FILE = "price/"
"""Not a stream: under this name `seen` has which file the replica is; another one may have other rows at a position."""

_OWN, _NOW = "overrides", "now"
_OWN_SQL = "SELECT CAST(count(*) AS TEXT), coalesce(max(changed_seq), 0) FROM overrides"

# A stream's life: its epoch, and when it was rebuilt; null before it was first complete.
_STREAMS = (
    "SELECT stream, CASE WHEN epoch IS NOT NULL THEN epoch || '/' || coalesce(rebuilt_at_ms, 0) END, position"
    f" FROM streams WHERE stream LIKE '{PRICE.name}/%'"
)
_SEEN = "SELECT stream, life, position FROM seen"
_AGAIN = "ON CONFLICT (sku) DO UPDATE SET next_s = 0"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found: prices that changed, and the next instant (seconds) at which one will by itself.

    `waits`: the replica is not complete, so there was nothing to look at. `now_s`: the moment that was looked at, by
    the clock that prices go by; the machine's may be another.
    """

    changed: int
    next_s: int | None
    waits: bool = False
    now_s: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Owed:
    """A price that the hook has not been told; `amount_minor` and the rest None: there is none any more."""

    sku: str
    serial: int
    price: Mapping[str, Any]


class PriceChanges:
    """One store's file; see the module."""

    def __init__(self, path: Path, replica: Path) -> None:
        self.path, self._replica = path, replica
        self._lock = threading.Lock()

    def look(self, now_s: int | None, *, hook: bool, upstream: bool, wide: bool = False, patient: bool = False) -> Look:
        """
        Find the prices that changed since the last look, and note whom they are owed to.

        Args:
            now_s: seconds since 1970; None: the moment that tills see too.
            wide: look at every price; so does a look whose moment lies before that of the last one.
            patient: before the first look, wait for every stream of prices.
        """
        with self._lock, opened(self.path, self._replica) as db:
            now_s = now_s if now_s is not None else int(db.execute(f"SELECT {schema.NOW_S}").fetchone()[0])
            if not self._mark(db, now_s, wide=wide, patient=patient):
                return Look(0, None, waits=True, now_s=now_s)
            filled = db.execute("PRAGMA main.user_version").fetchone()[0] == FILLED
            debts = (int(hook and filled), int(upstream and filled))
            changed = 0
            while (found := self._slice(db, now_s, debts)) is not None:
                changed += found
            if not filled:
                db.execute(f"PRAGMA main.user_version = {FILLED}")
                changed = 0
            db.execute(
                "DELETE FROM told WHERE lines = 0 AND amount_minor IS NULL AND next_s IS NULL AND owed = 0"
                " AND unsent = 0"
            )
            (next_s,) = db.execute("SELECT min(next_s) FROM told WHERE next_s IS NOT NULL").fetchone()
        return Look(changed, next_s, now_s=now_s)

    def owed(self, prices_max: int) -> list[Owed]:
        """The oldest debts to the hook."""
        with self._lock, opened(self.path, self._replica) as db:
            rows = db.execute(
                f"SELECT sku, owed, {_FIELDS} FROM told WHERE owed > 0 ORDER BY owed, sku LIMIT ?", (prices_max,)
            )
            return [Owed(sku, serial, dict(zip(FIELDS, rest, strict=True))) for sku, serial, *rest in rows]

    def pay(self, debts: Sequence[Owed]) -> None:
        """The hook has been told these; one that changed meanwhile stays owed."""
        with self._lock, opened(self.path, self._replica) as db, transaction(db):
            db.executemany("UPDATE told SET owed = 0 WHERE sku = ? AND owed = ?", [(d.sku, d.serial) for d in debts])

    def unsent(self, skus_max: int) -> tuple[int, list[str]]:
        """How many prices HQ has not been told of, and the first of them."""
        with self._lock, opened(self.path, self._replica) as db:
            (count,) = db.execute("SELECT count(*) FROM told WHERE unsent > 0").fetchone()
            rows = db.execute("SELECT sku FROM told WHERE unsent > 0 ORDER BY sku LIMIT ?", (skus_max,))
            return count, [sku for (sku,) in rows]

    def sent(self) -> None:
        """HQ will hear of all that `unsent` counted; call before the next look."""
        with self._lock, opened(self.path, self._replica) as db:
            db.execute("UPDATE told SET unsent = 0 WHERE unsent > 0")

    def _mark(self, db: sqlite3.Connection, now_s: int, *, wide: bool, patient: bool) -> bool:
        """Mark what may have changed by `next_s = 0`, and note up to where; False: there is nothing to look at yet."""
        with transaction(db):
            there, seen = _positions(db, _STREAMS), _positions(db, _SEEN)
            complete = [life is not None for life, _ in there.values()]
            lost = any(life and name in there and not there[name][0] for name, (life, _) in seen.items())
            if not any(complete) or lost or (patient and not seen and not all(complete)):
                return False
            there[_FILE] = (str(self._replica.stat().st_ino), 0)
            own, own_seen = db.execute(_OWN_SQL).fetchone(), seen.pop(_OWN, None)
            _, looked_s = seen.pop(_NOW, (None, now_s))
            if wide or now_s < looked_s or there.keys() != seen.keys() or any(_broke(seen[n], there[n]) for n in there):
                db.execute("UPDATE told SET next_s = 0")
                db.execute(f"INSERT INTO told(sku, next_s) SELECT sku, 0 FROM {PRICE.table} WHERE true {_AGAIN}")
            else:
                self._mark_behind(db, {n: (seen[n][1], there[n][1]) for n in there if there[n][1] > seen[n][1]})
            if own != own_seen:
                db.execute(f"INSERT INTO told(sku, next_s) SELECT sku, 0 FROM overrides WHERE true {_AGAIN}")
                db.execute(f"UPDATE told SET next_s = 0 WHERE kind = '{OVERRIDE}'")
            if there != seen or own != own_seen or now_s != looked_s or not seen:
                db.execute("DELETE FROM seen")
                there |= {_OWN: own, _NOW: (None, now_s)}
                db.executemany("INSERT INTO seen VALUES(?, ?, ?)", [(n, *at) for n, at in there.items()])
        return True

    def _mark_behind(self, db: sqlite3.Connection, moved: Mapping[str, tuple[int, int]]) -> None:
        events = rows = 0
        for name, (seen, position) in moved.items():
            events += position - seen
            rows += db.execute(
                f"INSERT INTO told(sku, next_s) SELECT sku, 0 FROM {PRICE.table} WHERE scope = ? AND seq > ? {_AGAIN}",
                (name.partition("/")[2], seen),
            ).rowcount
        if rows < events:  # an event without a row of its own: a deletion, or a row that changed twice
            db.execute(
                f"UPDATE told SET next_s = 0 WHERE lines <> (SELECT count(*) FROM {PRICE.table} AS r"
                " WHERE r.sku = told.sku)"
            )

    def _slice(self, db: sqlite3.Connection, now_s: int, debts: tuple[int, int]) -> int | None:
        """Look at the next marked or due prices; returns how many differ, None when there are no more."""
        with transaction(db):
            for table in ("slice", "fresh", "bounds"):
                db.execute(f"DELETE FROM temp.{table}")
            taken = db.execute(
                "INSERT INTO slice SELECT sku FROM told WHERE next_s <= ? ORDER BY next_s LIMIT ?", (now_s, SLICE_ROWS)
            ).rowcount
            if taken < 1:
                return None
            db.execute(
                f"INSERT INTO fresh SELECT sku, {_FIELDS} FROM ({schema.price_at_sql(str(now_s))})"
                " WHERE sku IN (SELECT sku FROM slice)"
            )
            db.execute(_bounds_sql(now_s))
            (changed,) = db.execute(
                "SELECT count(*) FROM slice AS s CROSS JOIN told AS t ON t.sku = s.sku"
                f" LEFT JOIN fresh AS f ON f.sku = s.sku WHERE {_DIFFERS}"
            ).fetchone()
            (serial,) = db.execute("SELECT coalesce(max(owed), 0) + 1 FROM told WHERE owed > 0").fetchone()
            db.execute(
                f"UPDATE told AS t SET {', '.join(f'{n} = f.{n}' for n in FIELDS)},"
                " lines = coalesce(b.lines, 0), next_s = b.next_s,"
                f" owed = CASE WHEN ?1 AND ({_DIFFERS}) THEN ?3 ELSE t.owed END,"
                f" unsent = CASE WHEN ?2 AND ({_DIFFERS}) THEN 1 ELSE t.unsent END"
                " FROM slice AS s LEFT JOIN fresh AS f ON f.sku = s.sku LEFT JOIN bounds AS b ON b.sku = s.sku"
                " WHERE t.sku = s.sku AND t.sku IN (SELECT sku FROM slice)",
                (*debts, serial),
            )
        return int(changed)


def _positions(db: sqlite3.Connection, sql: str) -> dict[str, tuple[str | None, int]]:
    return {name: (life, position) for name, life, position in db.execute(sql)}


def _broke(seen: tuple[str | None, int], there: tuple[str | None, int]) -> bool:
    """Whether the history of a stream is another one than at the last look."""
    return seen[0] != there[0] or there[1] < seen[1]


def _bounds_sql(now_s: int) -> str:
    """Of each sku of the slice its price lines, and the next instant at which a step starts or ends."""
    coming = f"CASE WHEN {_START} > {now_s} THEN {_START} WHEN {_END} > {now_s} THEN {_END} END"
    return (
        f"INSERT INTO bounds SELECT r.sku, count(DISTINCT r.rowid), min({coming})"
        f" FROM {PRICE.table} AS r JOIN json_each(r.schedule) AS s WHERE r.sku IN (SELECT sku FROM slice)"
        " GROUP BY r.sku"
    )
