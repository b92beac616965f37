"""`storenode doctor`: one line a check, and what to do about it."""

from __future__ import annotations

import click

from storenode.commands.conventions import examined, json_option, print_json, reported
from storenode.core import advice

_COLOURS = {advice.OK: "green", advice.WARN: "yellow", advice.FAIL: "red"}


@click.command()
@json_option
@click.pass_context
@reported
def doctor(context: click.Context, as_json: bool) -> None:
    """Check everything that a store needs, and say what to do.

    Settings, files, disk, daemon, broker, password, clock: one line each. It changes nothing, and works also when the
    daemon does not run.

    Exit code: 0 all is well, or can wait; 1 something must be done.

    \b
    storenode doctor
    """
    from storenode.doctor.checks import checks

    verdicts, listed = [], []
    for result in checks(examined(context)):
        finding = result.finding
        verdicts.append(finding)
        listed.append(
            {"check": result.name, "verdict": finding.verdict, "sentence": finding.sentence, "todo": finding.todo}
        )
        if not as_json:
            _print(result.name, finding)
    worst = advice.worst(verdicts)
    if as_json:
        print_json({"verdict": worst, "checks": listed})
    raise SystemExit(1 if worst == advice.FAIL else 0)


def _print(name: str, finding: advice.Finding) -> None:
    verdict = click.style(f"{finding.verdict:4}", fg=_COLOURS[finding.verdict])
    click.echo(f"{verdict}  {name:<14} {finding.sentence}" + (f"  -> {finding.todo}" if finding.todo else ""))
