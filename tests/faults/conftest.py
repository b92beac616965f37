"""What the torture tests share, and the figures of all: what tests recorded as properties, a line for each file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.chaos import Site
from tests.faults.scenes import Props
from tests.faults.stage import Stage


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as found:
        yield found


@pytest.fixture(scope="module")
def props(stage: Stage) -> Iterator[Props]:
    found = Props(stage)
    yield found
    found.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    sums: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, count in getattr(report, "user_properties", ()) if getattr(report, "when", "") == "call" else ():
                if isinstance(count, int):
                    sums[report.nodeid.partition("::")[0]][name] += count
    for module, figures in sorted(sums.items()):
        terminalreporter.write_line(f"{module}: " + ", ".join(f"{count:,} {name}" for name, count in figures.items()))
