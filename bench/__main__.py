"""`python -m bench`: measure, print one table, write it as JSON."""

from __future__ import annotations

from pathlib import Path

import click

from bench import apply, report
from bench.feeds import grocery


@click.command()
@click.option("--quick", is_flag=True, help="Fewer rows and runs; under two minutes.")
@click.option("--json", "path", default="bench-results.json", type=click.Path(path_type=Path), help="Where to write.")
def main(quick: bool, path: Path) -> None:
    """Measure what the documents promise, each against a limit measured in the same run."""
    found = apply.measure(grocery(), 200_000 if quick else 1_000_000, 3)
    report.show(found)
    report.write(path, found)


if __name__ == "__main__":
    main()
