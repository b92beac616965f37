"""The prices that stores have set themselves and that are in force: derived from the inbox, never stored.

The newest entry about a sku counts, of the store's newest outbox: a replaced machine has a new outbox, and begins
anew. Entries that are not as section 10.4 of the protocol says are passed over: any software of a store may write them.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Annotated

import msgspec

from hq.collect.inbox import ABOUT_OVERRIDES
from storelink.contract.limits import KEY_CHARS_MAX, SEQ_MAX
from storelink.contract.times import epoch_seconds
from storelink.contract.upstream import OVERRIDE_SET


class _About(msgspec.Struct):
    sku: Annotated[str, msgspec.Meta(min_length=1, max_length=KEY_CHARS_MAX)]


class _Set(_About, kw_only=True):
    amount_minor: Annotated[int, msgspec.Meta(ge=0, le=SEQ_MAX)]
    currency: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]
    starts_at: str
    ends_at: str
    reason: str


@dataclass(frozen=True, slots=True)
class StoreOverride:
    """
    One price that a store sets itself.

    Attributes:
        amount_minor: in the minor unit of `currency`.
        starts_at, ends_at: seconds since 1970, by the store's clock.
        position: the entry's cursor in the inbox.
        received_at_ms: when HQ received it; milliseconds since 1970.
    """

    store: str
    sku: str
    amount_minor: int
    currency: str
    starts_at: int
    ends_at: int
    reason: str
    position: int
    received_at_ms: int


def in_force(db: sqlite3.Connection, now_s: int, store: str | None = None) -> list[StoreOverride]:
    """The overrides not withdrawn, replaced or over at `now_s` (seconds since 1970), in order of store and sku."""
    found = db.execute("SELECT store, epoch, max(seen_at_ms) FROM outboxes GROUP BY store")
    newest = {name: epoch for name, epoch, _ in found}
    held: dict[tuple[str, str], StoreOverride] = {}
    for position, name, epoch, kind, received_at_ms, text in db.execute(
        "SELECT position, store, epoch, type, received_at_ms, data FROM entries"
        f" WHERE {ABOUT_OVERRIDES} AND store = coalesce(?, store) ORDER BY position",
        (store,),
    ):
        if newest.get(name) != epoch:
            continue
        try:
            if kind == OVERRIDE_SET:
                override = _read(name, position, received_at_ms, text)
                held[name, override.sku] = override
            else:
                held.pop((name, _withdrawn(text).sku), None)
        except (msgspec.MsgspecError, ValueError):
            continue
    return [each for _, each in sorted(held.items()) if each.ends_at > now_s]


def _read(store: str, position: int, received_at_ms: int, text: str) -> StoreOverride:
    entry = _set(text)
    return StoreOverride(
        store,
        entry.sku,
        entry.amount_minor,
        entry.currency,
        epoch_seconds(entry.starts_at),
        epoch_seconds(entry.ends_at),
        entry.reason,
        position,
        received_at_ms,
    )


_set = msgspec.json.Decoder(_Set).decode
_withdrawn = msgspec.json.Decoder(_About).decode
