"""What a measurement is, and the one table and JSON file that all of them end in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

WIDTH = 110


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value beside the limit measured in the same run; `ratio` is what the target speaks of.

    `at_least`: whether the target is a floor for the ratio (else a ceiling).
    """

    name: str
    value: float
    unit: str
    limit: str
    ratio: float
    target: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target


def middle(runs: Sequence[float]) -> float:
    """The median: machines are shared and noisy."""
    return median(runs)


def show(figures: Sequence[Figure]) -> None:
    table = Table("measure", "value", "limit in the same run", "ratio", "target", "", box=None, pad_edge=False)
    for f in figures:
        sign = "at least" if f.at_least else "at most"
        cells = (f.name, f"{f.value:,.4g} {f.unit}", f.limit, f"{f.ratio:.2f}", f"{sign} {f.target:g}")
        table.add_row(*cells, "" if f.met else "missed")
    Console(highlight=False, width=WIDTH).print(table)


def write(path: Path, figures: Sequence[Figure]) -> None:
    path.write_text(json.dumps([asdict(f) | {"met": f.met} for f in figures], indent=1) + "\n", encoding="utf-8")
