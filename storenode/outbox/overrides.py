"""The store's own prices: set at the store, kept in the outbox's file, told to HQ in the same transaction.

The overrides of one sku never overlap: a new one ends what was there, at the second in which it begins. So they
are a price schedule, which is how readers get them (storenode/replica/overrides.py). `ends_at` is when one ends or
ended; where it was replaced or withdrawn that is before `until`, the end that was asked for.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from storelink.contract.money import AMOUNT_MINOR_MAX, EXPONENTS
from storelink.contract.times import rfc3339
from storelink.contract.upstream import OVERRIDE_SET, OVERRIDE_WITHDRAWN
from storenode.core.overrides import COLUMNS, Override
from storenode.errors import BadArgument, NotFound

if TYPE_CHECKING:
    from storenode.outbox.store import Outbox

SKU_CHARS_MAX, REASON_CHARS_MAX = 64, 200
IN_FORCE_MAX = 10_000
KEPT_S = 90 * 86_400
"""How long an override that is over is kept, so that `price --at` can answer for the time it held."""

UNTIL_MAX = 253_402_300_799
"""The end of the year 9999: what a time can be written as."""


def put(outbox: Outbox, sku: str, amount_minor: int, currency: str, until: int, reason: str, now_ms: int) -> Override:
    """
    Set a price from now until `until` (seconds since 1970), instead of any that this store has set for the sku.

    Raises:
        BadArgument: a value out of its bounds, `until` not in the future, or IN_FORCE_MAX reached; nothing changed.
        OutboxFull, OutboxBusy, OutboxUnwritable: as named; nothing changed.
    """
    now_s = now_ms // 1000
    check(sku, amount_minor, currency, until, reason, now_s)
    made: list[Override] = []

    def also(db: sqlite3.Connection, seq: int) -> None:
        (held,) = db.execute("SELECT count(*) FROM overrides WHERE ends_at > ?", (now_s,)).fetchone()
        if held >= IN_FORCE_MAX:
            raise BadArgument(f"{IN_FORCE_MAX} overrides are in force", hint="withdraw those that are not needed")
        _end(db, sku, now_s, seq)
        db.execute("DELETE FROM overrides WHERE ends_at <= ?", (now_s - KEPT_S,))
        made.append(Override(sku, amount_minor, currency, now_s, until, until, reason, now_ms, seq, seq))
        db.execute(f"INSERT INTO overrides({COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", astuple(made[0]))

    outbox.append_json(OVERRIDE_SET, _told(sku, amount_minor, currency, now_s, until, reason), now_ms, also=also)
    return made[0]


def withdraw(outbox: Outbox, sku: str, now_ms: int) -> Override:
    """End the override in force for a sku; returns it as it is now. Raises NotFound, and what `put` raises."""
    now_s = now_ms // 1000
    ended: list[Override] = []

    def also(db: sqlite3.Connection, seq: int) -> None:
        if not _end(db, sku, now_s, seq):
            raise NotFound(f"no override of {sku[:80]} is in force", hint="storenode override lists them")
        row = db.execute(f"SELECT {COLUMNS} FROM overrides WHERE sku = ? AND changed_seq = ?", (sku, seq)).fetchone()
        ended.append(Override(*row))

    text = json.dumps({"sku": sku, "withdrawn_at": rfc3339(now_ms)}, ensure_ascii=False)
    outbox.append_json(OVERRIDE_WITHDRAWN, text, now_ms, also=also)
    return ended[0]


def read(db: sqlite3.Connection) -> list[Override]:
    """All that the outbox keeps, by sku and time."""
    return [Override(*row) for row in db.execute(f"SELECT {COLUMNS} FROM overrides ORDER BY sku, seq")]


def read_if_there(db: sqlite3.Connection) -> list[Override]:
    """Like `read`, of an outbox that may be of the version before overrides."""
    made = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'overrides'").fetchone()
    return read(db) if made else []


def check_currency(currency: str) -> None:
    if currency not in EXPONENTS:
        raise BadArgument(f"currency {currency[:40]!r} is no ISO 4217 code such as EUR")


def restate(db: sqlite3.Connection, now_ms: int) -> None:
    """Tell HQ of all that are in force once more, within the caller's transaction: the outbox begins a new epoch."""
    now_s = now_ms // 1000
    for held in [each for each in read(db) if each.ends_at > now_s]:
        text = _told(held.sku, held.amount_minor, held.currency, held.starts_at, held.ends_at, held.reason)
        db.execute("INSERT INTO entries(type, at_ms, data) VALUES(?, ?, ?)", (OVERRIDE_SET, now_ms, text))


def _end(db: sqlite3.Connection, sku: str, now_s: int, seq: int) -> int:
    """End what is in force or, by a clock that was set back, to come; returns how many that were."""
    return db.execute(
        "UPDATE overrides SET ends_at = max(starts_at, ?1), changed_seq = ?2 WHERE sku = ?3 AND ends_at > ?1"
        " AND (starts_at < ends_at)",
        (now_s, seq, sku),
    ).rowcount


def _told(sku: str, amount_minor: int, currency: str, starts_at: int, ends_at: int, reason: str) -> str:
    told: dict[str, Any] = {
        "sku": sku,
        "amount_minor": amount_minor,
        "currency": currency,
        "starts_at": rfc3339(starts_at * 1000),
        "ends_at": rfc3339(ends_at * 1000),
        "reason": reason,
    }
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def check(sku: str, amount_minor: int, currency: str, until: int, reason: str, now_s: int) -> None:
    """Raise BadArgument unless such an override can be set at `now_s`."""
    for what, text, most in (("sku", sku, SKU_CHARS_MAX), ("reason", reason, REASON_CHARS_MAX)):
        if not text.strip() or len(text) > most or not text.isprintable():
            raise BadArgument(f"{what} {text[:80]!r} must be 1 to {most} printable characters")
    check_currency(currency)
    if not 0 <= amount_minor <= AMOUNT_MINOR_MAX:
        raise BadArgument(f"amount {amount_minor} must be 0 to {AMOUNT_MINOR_MAX} minor units")
    if until <= now_s:
        raise BadArgument(f"until {rfc3339(until * 1000)} is in the past", hint="now is " + rfc3339(now_s * 1000))
    if until > UNTIL_MAX:
        raise BadArgument("until is beyond the year 9999")
