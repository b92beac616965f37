"""`python -m bench`: measure, print one table, write it as JSON."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from bench import report
from bench.measures import api, apply, away, boot, fleet, imports, latency, scopes
from bench.report import Figure
from testbed.feeds import Grocery, grocery, multiplied
from testbed.process import StepFailed

MILLION = 1_000_000

Measure = Callable[[Grocery, bool], list[Figure]]
"""Takes the catalogue and whether to be quick; no figures: too long for that."""

MEASURES: Mapping[str, Measure] = {
    "apply": lambda g, quick: apply.measure(g, 200_000 if quick else MILLION, 3),
    "bootstrap": lambda g, quick: boot.measure(g, 3 if quick else 7, 0.50, peaks=False),
    "bootstrap-1m": lambda g, quick: [] if quick else boot.measure(multiplied(g, MILLION), 1, 0.60, peaks=True),
    "catch-up": lambda g, quick: away.measure(g, 50_000, 5_000, 3) if quick else away.measure(g, MILLION, 10_000, 7),
    "steady": lambda g, quick: latency.measure_steady(g, 8 if quick else 30),
    "sustained": lambda g, quick: (
        latency.measure_sustained(g, 4, (10_000, 15_000)) if quick else latency.measure_sustained(g, 8)
    ),
    "fleet": lambda g, quick: fleet.measure_fleet(g, 60 if quick else 300, 1 if quick else 3),
    "hq-cost": lambda g, quick: fleet.measure_hq_cost(g, 100 if quick else 300, 1 if quick else 3),
    "scopes": lambda _, quick: scopes.measure((500,), 200) if quick else scopes.measure((500, 5_000), 1_000),
    "import": lambda g, quick: imports.measure(g, 1 if quick else 5),
    "api": lambda g, quick: api.measure(g, 50_000, 3, 2.0) if quick else api.measure(g, 200_000, 7, 4.0),
    "idle": lambda g, quick: boot.idle(g, 15 if quick else 60),
}


@click.command()
@click.option("--quick", is_flag=True, help="Fewer rows and runs; under two minutes.")
@click.option("--only", multiple=True, type=click.Choice(list(MEASURES)), help="This measure; may be repeated.")
@click.option("--json", "path", default="bench-results.json", type=click.Path(path_type=Path), help="Where to write.")
def main(quick: bool, only: tuple[str, ...], path: Path) -> None:
    """Measure what the documents promise, each against a limit measured in the same run."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as after Ctrl-C, every process is ended
    catalogue, found, failed = grocery(), [], False
    for name in only or MEASURES:
        click.echo(f"{name} ...", nl=False, err=True)
        began = time.monotonic()
        try:
            taken = MEASURES[name](catalogue, quick)
            found += taken
            outcome = "done" if taken else "left out"
        except StepFailed as error:
            failed, outcome = True, f"failed: {error}"
        click.echo(f" {outcome} in {time.monotonic() - began:.0f} s", err=True)
        report.write(path, found)
    report.show(found)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
