"""This store's own prices: the record that outbox and replica both keep, and the price lines that it makes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from storelink.contract import schedule
from storelink.contract.limits import STEPS_MAX
from storelink.contract.precedence import OVERRIDE
from storelink.contract.schedule import Step

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


def price_lines(rows: Iterable[Override], scope: str) -> list[tuple[str | int, ...]]:
    """What readers' views get of overrides that are sorted by sku: a line `(scope, sku, kind, currency, ...)` a sku."""
    found: list[tuple[str | int, ...]] = []
    for sku, each in by_sku(rows).items():
        held = sorted((r for r in each if r.starts_at < r.ends_at), key=lambda r: r.starts_at)
        if held:
            # A price line has one currency; what was sold in another before is left out.
            steps = [Step(r.starts_at, r.ends_at, r.amount_minor) for r in held if r.currency == held[-1].currency]
            dumped = schedule.dump(tuple(steps[-STEPS_MAX:]))
            found.append((scope, sku, OVERRIDE, held[-1].currency, dumped, held[-1].seq))
    return found


def by_sku(rows: Iterable[Override]) -> dict[str, list[Override]]:
    """Group overrides that are sorted by sku."""
    return {sku: list(each) for sku, each in groupby(rows, key=lambda row: row.sku)}
