"""
The prices of a chain under load, as they were asked for, against rows read by plain sqlite3 as any till would.

Amounts are in minor units; None stands for a deleted price.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.oracle.history import History
from tests.oracle.verdicts import Verdict


class Prices(History):
    """What HQ must hold of `price/all`, and every replica in the end. Safe to use from several threads.

    Several desks commit at once, so the order of change sets is not known: amounts and the number of changes are.
    """

    def __init__(self) -> None:
        super().__init__("price/all", "")
        self.amounts: dict[str, int] = {}
        self._lock = threading.Lock()

    def ask_for(self, amounts: Mapping[str, int | None]) -> int:
        """HQ is asked for these amounts, None deletes; returns how many changes that is: what was so is none."""
        with self._lock:
            for sku, amount in amounts.items():
                if amount is None:
                    self.amounts.pop(sku, None)
                else:
                    self.amounts[sku] = amount
            return self.ask(((sku,), None if amount is None else (amount,)) for sku, amount in amounts.items())


@dataclass(frozen=True, slots=True)
class Found:
    """What a replica's file holds of `price/all`."""

    amounts: dict[str, int]
    position: int
    doubles: int


def last_amount(schedule: str) -> int:
    """The amount of a schedule's last step, which must be open."""
    _, ends_at, amount = json.loads(schedule)[-1]
    assert ends_at is None, schedule
    assert isinstance(amount, int), schedule
    return amount


def read_replica(path: Path) -> Found | None:
    """Read all prices and the position in one transaction; None while the file is not there or not made yet."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as db:
            db.execute("BEGIN")
            position = db.execute("SELECT position FROM streams WHERE stream = 'price/all'").fetchone()
            rows = db.execute("SELECT sku, kind, currency, schedule, seq FROM prices WHERE scope = 'all'").fetchall()
    except sqlite3.OperationalError:
        return None
    assert {row[1:3] for row in rows} <= {("regular", "EUR")}
    doubles = len(rows) - len({row[0] for row in rows}) + len(rows) - len({row[4] for row in rows})
    amounts = {sku: last_amount(schedule) for sku, _, _, schedule, _ in rows}
    return Found(amounts, position[0] if position else 0, doubles)


def judge_rows(model: Prices, found: Found | None) -> Verdict:
    """Lost: a sku missing, or a change (by the position). Double: a row twice, or a change counted twice."""
    if found is None:
        return Verdict(lost=max(1, len(model.amounts)))
    missing = len(model.amounts.keys() - found.amounts.keys())
    wrong = [sku for sku, amount in found.amounts.items() if model.amounts.get(sku) != amount]
    ahead = found.position - model.head
    return Verdict([f"the price of {sku}" for sku in wrong], missing + max(0, -ahead), found.doubles + max(0, ahead))


def judge_inbox(accepted: Iterable[Any], arrived: Iterable[Mapping[str, Any]]) -> Verdict:
    """
    Hold what `hq inbox --ndjson` prints of one store against what its outbox accepted, in order.

    Args:
        accepted: the data of each entry, all different.
        arrived: the printed objects.
    """
    want, got = list(accepted), [entry["data"] for entry in arrived]
    counts = Counter(got)
    lost = sum(counts[data] == 0 for data in want)
    double = sum(n - 1 for n in counts.values())
    known = set(want)
    disordered = [data for data in dict.fromkeys(got) if data in known] != [data for data in want if counts[data]]
    wrong = [f"{data} was never emitted" for data in counts.keys() - known]
    return Verdict(wrong + ["entries are not in order"] * disordered, lost, double)


def amounts_at_hq(master: Path, prefix: str) -> set[int]:
    """The different last amounts of the skus that begin with `prefix`, as the master's file holds them."""
    with closing(sqlite3.connect(f"file:{master}?mode=ro", uri=True)) as db:
        rows = db.execute(
            "SELECT schedule FROM master_price WHERE scope = 'all' AND sku GLOB ? AND NOT deleted", (f"{prefix}*",)
        ).fetchall()
    return {last_amount(schedule) for (schedule,) in rows}
