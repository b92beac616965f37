"""What a measurement is, and the one table and JSON file that all of them end in."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from testbed import broker

WIDTH = 132


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value beside the limit measured in the same run; `ratio` is what the target speaks of.

    `at_least`: whether the target is a floor for the ratio (else a ceiling). Without a target it is told, not judged.
    """

    name: str
    value: float
    unit: str
    limit: str
    ratio: float
    target: float | None
    at_least: bool

    @property
    def met(self) -> bool:
        if self.target is None:
            return True
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target


def middle(runs: Sequence[float]) -> float:
    """The median: machines are shared and noisy."""
    return median(runs)


def told(name: str, value: float, unit: str, limit: str = "-") -> Figure:
    """A figure without a target, that explains another."""
    return Figure(name, value, unit, limit, value, None, True)


def at_most(name: str, value: float, unit: str, most: float) -> Figure:
    """A value that is judged by itself."""
    return Figure(name, value, unit, "-", value, most, False)


def show(figures: Sequence[Figure]) -> None:
    table = Table("measure", "value", "limit in the same run", "ratio", "target", "", box=None, pad_edge=False)
    for f in figures:
        judged = ("", "")
        if f.target is not None:
            judged = (_number(f.ratio), f"{'at least' if f.at_least else 'at most'} {f.target:,g}")
        table.add_row(f.name, f"{_number(f.value)} {f.unit}", f.limit, *judged, "" if f.met else "missed")
    Console(highlight=False, width=WIDTH).print(table)


def _number(value: float) -> str:
    """Three places that matter, no exponents."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"


def machine() -> dict[str, str | int]:
    """What the figures were taken on."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "cpu_count": os.cpu_count() or 0,
        "broker": broker.version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def write(path: Path, figures: Sequence[Figure]) -> None:
    """Write `{"machine": {...}, "figures": [...]}`."""
    document = {"machine": machine(), "figures": [asdict(f) | {"met": f.met} for f in figures]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
