"""The figures of all suites: what tests recorded as properties, summed, a line for each file."""

from __future__ import annotations

from collections import defaultdict
from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    sums: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, count in getattr(report, "user_properties", ()) if getattr(report, "when", "") == "call" else ():
                if isinstance(count, int):
                    sums[report.nodeid.partition("::")[0]][name] += count
    for module, figures in sorted(sums.items()):
        terminalreporter.write_line(f"{module}: " + ", ".join(f"{count:,} {name}" for name, count in figures.items()))
