"""Price changes: of which prices the hook and HQ have not been notified yet, and which was notified last.

A file of its own beside the replica (`replica.db.price-changes`), derived: when it is lost, nobody is notified of what
changed meanwhile, and it begins anew from the prices as they are. It finds whatever changes a price: a step that
starts or ends (`next_s` is an index over the instants to come), a row that HQ changed (its seq lies behind
`looked_at`), a line that was deleted (`lines`), a price of the store's own, a rebuilt replica. A look costs what
changed, not what there is: 50,000 prices that stand still cost two lookups.

A change is marked delivered after the hook succeeded, and marked sent after the outbox accepted it. After a crash in
between, it is delivered again: at least once. One `PriceChanges` a process; any thread may call, one at a time.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storelink.contract.contexts import PRICE
from storelink.contract.precedence import OVERRIDE
from storelink.host.logs import get_logger
from storelink.host.sqlite import is_damage, open_file, transaction
from storenode.errors import ReplicaMissing
from storenode.replica import schema
from storenode.replica.file import translated

log = get_logger()

BUSY_TIMEOUT_S = 10.0
CACHE_KIB = 8_192

SLICE_ROWS = 5_000
"""Prices of one transaction of a look."""

FILLED = 1
"""`user_version` of a file that has had every price once; before that nobody is notified of anything."""

FIELDS = ("amount_minor", "currency", "kind", "scope", "starts_at", "ends_at")
_FIELDS = ", ".join(FIELDS)
_DIFFERS = " OR ".join(f"t.{n} IS NOT f.{n}" for n in ("amount_minor", "currency", "kind"))

_START, _END = "json_extract(s.value, '$[0]')", "json_extract(s.value, '$[1]')"
_FILE = "price/"
"""Not a stream: under this name `looked_at` has which file the replica is; another file may have other rows."""

_OWN, _NOW = "overrides", "now"
_OWN_SQL = "SELECT CAST(count(*) AS TEXT), coalesce(max(changed_seq), 0) FROM overrides"

# A stream's life: its epoch, and when it was rebuilt; null before it was first complete.
_STREAMS = (
    "SELECT stream, CASE WHEN epoch IS NOT NULL THEN epoch || '/' || coalesce(rebuilt_at_ms, 0) END, position"
    f" FROM streams WHERE stream LIKE '{PRICE.name}/%'"
)
_LOOKED_AT = "SELECT stream, life, position FROM looked_at"
_AGAIN = "ON CONFLICT (sku) DO UPDATE SET next_s = 0"

# notified: of each sku the price that was notified last, the price lines it has (`lines`; -1: not counted yet), and the
# next instant at which the price may change (`next_s`; 0: look at it now). `hook_serial`: the order in which the hook
# is to be notified, 0 when nothing is pending; `for_hq`: 1 when HQ is still to be notified.
# looked_at: of each stream how far the last look saw it.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS notified (
    sku TEXT PRIMARY KEY, amount_minor INTEGER, currency TEXT, kind TEXT, scope TEXT, starts_at TEXT, ends_at TEXT,
    lines INTEGER NOT NULL DEFAULT -1, next_s INTEGER,
    hook_serial INTEGER NOT NULL DEFAULT 0, for_hq INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS notified_next ON notified(next_s) WHERE next_s IS NOT NULL;
CREATE INDEX IF NOT EXISTS notified_hook ON notified(hook_serial) WHERE hook_serial > 0;
CREATE INDEX IF NOT EXISTS notified_hq ON notified(sku) WHERE for_hq > 0;
CREATE INDEX IF NOT EXISTS notified_gone ON notified(sku) WHERE lines = 0;
CREATE TABLE IF NOT EXISTS looked_at (stream TEXT PRIMARY KEY, life TEXT, position INTEGER NOT NULL);
CREATE TEMP TABLE slice (sku TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP TABLE fresh (
    sku TEXT PRIMARY KEY, amount_minor INTEGER, currency TEXT, kind TEXT, scope TEXT, starts_at TEXT, ends_at TEXT
) WITHOUT ROWID;
CREATE TEMP TABLE bounds (sku TEXT PRIMARY KEY, lines INTEGER, next_s INTEGER) WITHOUT ROWID;
"""


def price_changes_path(db: Path) -> Path:
    """The file of a replica; it lies beside the replica, as its lock and its spool do."""
    return db.with_name(f"{db.name}.price-changes")


@dataclass(frozen=True, slots=True)
class ChangesFound:
    """What one look found: how many prices changed, and the next instant (seconds) at which one changes by itself.

    `waits`: the replica is not complete, so there was nothing to look at. `now_s`: the moment that was looked at, by
    the clock that prices go by; the machine's clock may differ.
    """

    changed: int
    next_s: int | None
    waits: bool = False
    now_s: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class PendingChange:
    """A price that the hook has not been notified of; `amount_minor` and the rest None: there is no price any more."""

    sku: str
    serial: int
    price: Mapping[str, Any]


class PriceChanges:
    """One store's file; see the module."""

    def __init__(self, path: Path, replica: Path) -> None:
        self.path, self._replica = path, replica
        self._lock = threading.Lock()

    def find(
        self, now_s: int | None, *, hook: bool, hq: bool, all_prices: bool = False, wait_for_all: bool = False
    ) -> ChangesFound:
        """
        Find the prices that changed since the last look, and note who is to be notified of them.

        Args:
            now_s: seconds since 1970; None: the moment that tills see too.
            hook, hq: who is to be notified.
            all_prices: look at every price; so does a look whose moment lies before that of the last one.
            wait_for_all: before the first look, wait for every stream of prices.
        """
        with self._lock, opened(self.path, self._replica) as db:
            now_s = now_s if now_s is not None else int(db.execute(f"SELECT {schema.NOW_S}").fetchone()[0])
            if not self._mark(db, now_s, all_prices=all_prices, wait_for_all=wait_for_all):
                return ChangesFound(0, None, waits=True, now_s=now_s)
            filled = db.execute("PRAGMA main.user_version").fetchone()[0] == FILLED
            whom = (int(hook and filled), int(hq and filled))
            changed = 0
            while (found := self._slice(db, now_s, whom)) is not None:
                changed += found
            if not filled:
                db.execute(f"PRAGMA main.user_version = {FILLED}")
                changed = 0
            db.execute(
                "DELETE FROM notified WHERE lines = 0 AND amount_minor IS NULL AND next_s IS NULL"
                " AND hook_serial = 0 AND for_hq = 0"
            )
            (next_s,) = db.execute("SELECT min(next_s) FROM notified WHERE next_s IS NOT NULL").fetchone()
        return ChangesFound(changed, next_s, now_s=now_s)

    def pending_for_hook(self, prices_max: int) -> list[PendingChange]:
        """The oldest changes that the hook has not been notified of."""
        with self._lock, opened(self.path, self._replica) as db:
            rows = db.execute(
                f"SELECT sku, hook_serial, {_FIELDS} FROM notified WHERE hook_serial > 0"
                " ORDER BY hook_serial, sku LIMIT ?",
                (prices_max,),
            )
            return [PendingChange(sku, serial, dict(zip(FIELDS, rest, strict=True))) for sku, serial, *rest in rows]

    def mark_delivered(self, changes: Sequence[PendingChange]) -> None:
        """Note that the hook succeeded with these; a price that changed again meanwhile stays pending."""
        with self._lock, opened(self.path, self._replica) as db, transaction(db):
            db.executemany(
                "UPDATE notified SET hook_serial = 0 WHERE sku = ? AND hook_serial = ?",
                [(change.sku, change.serial) for change in changes],
            )

    def pending_for_hq(self, skus_max: int) -> tuple[int, list[str]]:
        """How many prices HQ has not been notified of, and the first of them."""
        with self._lock, opened(self.path, self._replica) as db:
            (count,) = db.execute("SELECT count(*) FROM notified WHERE for_hq > 0").fetchone()
            rows = db.execute("SELECT sku FROM notified WHERE for_hq > 0 ORDER BY sku LIMIT ?", (skus_max,))
            return count, [sku for (sku,) in rows]

    def mark_sent_to_hq(self) -> None:
        """Note that the outbox accepted all that `pending_for_hq` counted; call before the next look."""
        with self._lock, opened(self.path, self._replica) as db:
            db.execute("UPDATE notified SET for_hq = 0 WHERE for_hq > 0")

    def _mark(self, db: sqlite3.Connection, now_s: int, *, all_prices: bool, wait_for_all: bool) -> bool:
        """Mark what may have changed by `next_s = 0`, and note up to where; False: there is nothing to look at yet."""
        with transaction(db):
            there, seen = _positions(db, _STREAMS), _positions(db, _LOOKED_AT)
            complete = [life is not None for life, _ in there.values()]
            lost = any(life and name in there and not there[name][0] for name, (life, _) in seen.items())
            if not any(complete) or lost or (wait_for_all and not seen and not all(complete)):
                return False
            there[_FILE] = (str(self._replica.stat().st_ino), 0)
            own, own_seen = db.execute(_OWN_SQL).fetchone(), seen.pop(_OWN, None)
            _, looked_s = seen.pop(_NOW, (None, now_s))
            began_anew = there.keys() != seen.keys() or any(_began_anew(seen[n], there[n]) for n in there)
            if all_prices or now_s < looked_s or began_anew:
                db.execute("UPDATE notified SET next_s = 0")
                db.execute(f"INSERT INTO notified(sku, next_s) SELECT sku, 0 FROM {PRICE.table} WHERE true {_AGAIN}")
            else:
                self._mark_behind(db, {n: (seen[n][1], there[n][1]) for n in there if there[n][1] > seen[n][1]})
            if own != own_seen:
                db.execute(f"INSERT INTO notified(sku, next_s) SELECT sku, 0 FROM overrides WHERE true {_AGAIN}")
                db.execute(f"UPDATE notified SET next_s = 0 WHERE kind = '{OVERRIDE}'")
            if there != seen or own != own_seen or now_s != looked_s or not seen:
                db.execute("DELETE FROM looked_at")
                there |= {_OWN: own, _NOW: (None, now_s)}
                db.executemany("INSERT INTO looked_at VALUES(?, ?, ?)", [(n, *at) for n, at in there.items()])
        return True

    def _mark_behind(self, db: sqlite3.Connection, moved: Mapping[str, tuple[int, int]]) -> None:
        events = rows = 0
        for name, (seen, position) in moved.items():
            events += position - seen
            rows += db.execute(
                f"INSERT INTO notified(sku, next_s) SELECT sku, 0 FROM {PRICE.table}"
                f" WHERE scope = ? AND seq > ? {_AGAIN}",
                (name.partition("/")[2], seen),
            ).rowcount
        if rows < events:  # an event without a row of its own: a deletion, or a row that changed twice
            db.execute(
                f"UPDATE notified SET next_s = 0 WHERE lines <> (SELECT count(*) FROM {PRICE.table} AS r"
                " WHERE r.sku = notified.sku)"
            )

    def _slice(self, db: sqlite3.Connection, now_s: int, whom: tuple[int, int]) -> int | None:
        """Look at the next marked or due prices; returns how many differ, None when there are no more.

        `whom`: 1 or 0 for the hook, 1 or 0 for HQ.
        """
        with transaction(db):
            for table in ("slice", "fresh", "bounds"):
                db.execute(f"DELETE FROM temp.{table}")
            taken = db.execute(
                "INSERT INTO slice SELECT sku FROM notified WHERE next_s <= ? ORDER BY next_s LIMIT ?",
                (now_s, SLICE_ROWS),
            ).rowcount
            if taken < 1:
                return None
            db.execute(
                f"INSERT INTO fresh SELECT sku, {_FIELDS} FROM ({schema.price_at_sql(str(now_s))})"
                " WHERE sku IN (SELECT sku FROM slice)"
            )
            db.execute(_bounds_sql(now_s))
            (changed,) = db.execute(
                "SELECT count(*) FROM slice AS s CROSS JOIN notified AS t ON t.sku = s.sku"
                f" LEFT JOIN fresh AS f ON f.sku = s.sku WHERE {_DIFFERS}"
            ).fetchone()
            (serial,) = db.execute(
                "SELECT coalesce(max(hook_serial), 0) + 1 FROM notified WHERE hook_serial > 0"
            ).fetchone()
            db.execute(
                f"UPDATE notified AS t SET {', '.join(f'{n} = f.{n}' for n in FIELDS)},"
                " lines = coalesce(b.lines, 0), next_s = b.next_s,"
                f" hook_serial = CASE WHEN ?1 AND ({_DIFFERS}) THEN ?3 ELSE t.hook_serial END,"
                f" for_hq = CASE WHEN ?2 AND ({_DIFFERS}) THEN 1 ELSE t.for_hq END"
                " FROM slice AS s LEFT JOIN fresh AS f ON f.sku = s.sku LEFT JOIN bounds AS b ON b.sku = s.sku"
                " WHERE t.sku = s.sku AND t.sku IN (SELECT sku FROM slice)",
                (*whom, serial),
            )
        return int(changed)


def _positions(db: sqlite3.Connection, sql: str) -> dict[str, tuple[str | None, int]]:
    return {name: (life, position) for name, life, position in db.execute(sql)}


def _began_anew(seen: tuple[str | None, int], there: tuple[str | None, int]) -> bool:
    """Whether a stream has another history than at the last look."""
    return seen[0] != there[0] or there[1] < seen[1]


def _bounds_sql(now_s: int) -> str:
    """The SQL that finds, for each sku of the slice, its price lines and the next instant of a step."""
    coming = f"CASE WHEN {_START} > {now_s} THEN {_START} WHEN {_END} > {now_s} THEN {_END} END"
    return (
        f"INSERT INTO bounds SELECT r.sku, count(DISTINCT r.rowid), min({coming})"
        f" FROM {PRICE.table} AS r JOIN json_each(r.schedule) AS s WHERE r.sku IN (SELECT sku FROM slice)"
        " GROUP BY r.sku"
    )


@contextmanager
def opened(path: Path, replica: Path) -> Iterator[sqlite3.Connection]:
    """A connection to the file, with the replica attached read-only as `replica`. A damaged file begins anew."""
    if not replica.exists():
        raise ReplicaMissing(f"there is no replica at {replica}")
    with translated(replica):
        try:
            db = _connect(path)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            _start_anew(path, str(error))
            db = _connect(path)
        try:
            db.execute("ATTACH ? AS replica", (f"{replica.absolute().as_uri()}?mode=ro",))
            db.execute(f"PRAGMA replica.cache_size=-{CACHE_KIB}")
            yield db
        except sqlite3.DatabaseError as error:
            if is_damage(error) and not _is_sound(db):
                _start_anew(path, str(error))
            raise
        finally:
            db.close()


def _connect(path: Path) -> sqlite3.Connection:
    db = open_file(path, "rwc", BUSY_TIMEOUT_S)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA temp_store=MEMORY")
        db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db


def _start_anew(path: Path, reason: str) -> None:
    log.error("price_changes.lost", path=str(path), reason=reason)
    forget(path)


def forget(path: Path) -> None:
    """Remove the file. Its log goes last: SQLite removes a log that lies beside no file."""
    for suffix in ("-shm", "", "-wal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _is_sound(db: sqlite3.Connection) -> bool:
    """Whether this file is sound, so that the damage is the replica's."""
    try:
        return bool(db.execute("PRAGMA main.quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.DatabaseError:
        return False
