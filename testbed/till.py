"""A till: asks a replica for one price after another, in SQL, as store software does, and never the network."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PAUSE_S = 0.002
PRICE_SQL = "SELECT amount_minor, currency FROM current_prices WHERE sku = ?"


class Till(threading.Thread):
    """Looks prices up until it is stopped; counts what went wrong and how long the slowest took."""

    def __init__(self, replica: Path, skus: Sequence[str]) -> None:
        super().__init__(name="till", daemon=True)
        self._replica = replica
        self._skus = skus
        self._stopping = threading.Event()
        self.lookups = 0
        self.failures: list[str] = []
        self.took_ms: list[float] = []

    def run(self) -> None:
        while not self._stopping.wait(PAUSE_S):
            sku = self._skus[self.lookups % len(self._skus)]
            began = time.perf_counter()
            try:
                found = price(self._replica, sku)
            except sqlite3.Error as error:
                found = None
                self.failures.append(f"{sku}: {error}")
            self.took_ms.append((time.perf_counter() - began) * 1000)
            if found is None and not self.failures:
                self.failures.append(f"{sku}: no price")
            self.lookups += 1

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def slowest_ms(self, share: float) -> float:
        """The time within which this share of the lookups, from 0 to 1, was answered."""
        ordered = sorted(self.took_ms)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def price(replica: Path, sku: str) -> tuple[int, str] | None:
    """One lookup with a connection of its own, read-only."""
    connection = _opened(replica)
    try:
        row = connection.execute(PRICE_SQL, (sku,)).fetchone()
        return None if row is None else (int(row[0]), str(row[1]))
    finally:
        connection.close()


def freshness(replica: Path) -> dict[str, tuple[str, int]]:
    """State and position by stream, as the replica's view tells a till; empty before the replica is made."""
    if not replica.exists():
        return {}
    connection = _opened(replica)
    try:
        found = connection.execute("SELECT stream, state, position FROM freshness")
        return {str(stream): (str(state), int(position)) for stream, state, position in found}
    except sqlite3.OperationalError:
        return {}
    finally:
        connection.close()


def wrong_prices(replica: Path, expected: Mapping[str, int]) -> int:
    """How many skus do not cost what they should; found row by row, without any digest."""
    connection = _opened(replica)
    try:
        found: dict[str, int] = dict(connection.execute("SELECT sku, amount_minor FROM current_prices").fetchall())
    finally:
        connection.close()
    return sum(found.get(sku) != amount for sku, amount in expected.items()) + len(found.keys() - expected.keys())


def _opened(replica: Path) -> sqlite3.Connection:
    """A connection as a till's: it cannot write, and waits a moment at most."""
    return sqlite3.connect(f"{replica.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)
