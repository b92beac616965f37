"""The time that prices go by, in SQL: the table `clock`, whose one writer this is, and what every reader makes of it.

The rules are those of `storenode.core.clock_rules`, as far as they need no daemon: a correction holds for the clock
that it was made for (not for one that was set back since), also while the daemon is away; a clock further past
`known_ms` than the hold does not count; and it is never earlier than `known_ms`. Before HQ is heard for the first
time it is the clock.
"""

from __future__ import annotations

import sqlite3
from dataclasses import astuple, fields
from typing import TYPE_CHECKING

from storenode.core.clock_rules import NEVER_MS, SKEW_MS_MAX, UNCONFIRMED, Mark

if TYPE_CHECKING:
    from sqlite_utils import Database

LOCAL_S = "CAST(strftime('%s', 'now') AS INTEGER)"

_COLUMNS = ", ".join(field.name for field in fields(Mark))

NOW_S = "(SELECT now_s FROM price_clock)"
"""The time that prices go by, in seconds since 1970. A view of one row: the rules written out at each place where a
view needs the time would double what a reader's statement costs to prepare."""


def create_table(db: Database) -> None:
    """Make `clock`: one row, `storenode.core.clock_rules.Mark`, of which nothing is known at first."""
    db.table("clock").create(
        {
            "id": int,
            "known_ms": int,
            "wall_ms": int,
            "correction_ms": int,
            "skew_ms": int,
            "verdict": str,
            "hold_ms": int,
            "boot": str,
            "steady_ms": int,
            "lead_ms": int,
            "heard_ms": int,
        },
        pk="id",
        not_null={"known_ms", "wall_ms", "correction_ms", "verdict", "hold_ms"},
    )
    db.conn.execute(
        "INSERT INTO clock(id, known_ms, wall_ms, correction_ms, verdict, hold_ms) VALUES(1, 0, 0, 0, ?, ?)",
        (UNCONFIRMED, NEVER_MS),
    )


def read_mark(db: sqlite3.Connection) -> Mark | None:
    """What was last written down about this machine's clock; None before HQ is heard for the first time."""
    row = db.execute(f"SELECT {_COLUMNS} FROM clock WHERE known_ms > 0").fetchone()
    return Mark(*row) if row else None


def write_mark(db: sqlite3.Connection, mark: Mark) -> None:
    """Write down what is known now, in place of what was."""
    statement = f"INSERT OR REPLACE INTO clock(id, {_COLUMNS}) VALUES(1{', ?' * len(fields(Mark))})"
    db.execute(statement, astuple(mark))


def create_view(db: Database) -> None:
    db.create_view("price_clock", f"SELECT {now_s()} AS now_s FROM clock WHERE id = 1", replace=True)


def now_s(local_s: str = LOCAL_S) -> str:
    """Return the time that prices go by, as SQL over the row of `clock`, for a clock that reads `local_s`."""
    return f"""max(known_ms / 1000, CASE
    WHEN {_as_before(local_s)} THEN {local_s} + correction_ms / 1000
    WHEN {_plausible(local_s)} THEN {local_s}
    ELSE 0 END)"""


def verdict(local_s: str = LOCAL_S) -> str:
    """Return the verdict on a clock that reads `local_s`, as SQL over the row: the daemon's, if it is that clock."""
    behind = f"known_ms / 1000 - {SKEW_MS_MAX // 1000}"
    return f"""CASE
    WHEN {_as_before(local_s)} THEN CASE WHEN {local_s} + correction_ms / 1000 < {behind} THEN 'behind' ELSE verdict END
    WHEN {_plausible(local_s)} THEN CASE WHEN {local_s} < {behind} THEN 'behind' ELSE 'unconfirmed' END
    ELSE 'held' END"""


def _as_before(local_s: str) -> str:
    """Whether it may be the clock that the correction was made for."""
    return f"{local_s} BETWEEN wall_ms / 1000 - {SKEW_MS_MAX // 1000} AND (known_ms + hold_ms - correction_ms) / 1000"


def _plausible(local_s: str) -> str:
    return f"{local_s} <= (known_ms + hold_ms) / 1000"
