"""`storenode doctor`: one line a check, and what to do about it."""

from __future__ import annotations

import json

import click

from storenode.commands.shared import examined, json_option, reported
from storenode.core import advice

_COLOURS = {advice.OK: "green", advice.WARN: "yellow", advice.FAIL: "red"}


@click.command()
@json_option
@click.pass_context
@reported
def doctor(context: click.Context, as_json: bool) -> None:
    """Check configuration, files, disk, daemon, broker, credentials, clock; say what is wrong and what to do.

    Works with the daemon alive or dead, as root or another user, and changes nothing. Exit code: 0 all is well, or
    can wait; 1 something must be done.
    """
    from storenode.doctor.checks import checks

    verdicts, results = [], []
    for result in checks(examined(context)):
        finding = result.finding
        verdicts.append(finding)
        results.append(
            {"check": result.name, "verdict": finding.verdict, "sentence": finding.sentence, "todo": finding.todo}
        )
        if not as_json:
            _print(result.name, finding)
    worst = advice.worst(verdicts)
    if as_json:
        click.echo(json.dumps({"verdict": worst, "checks": results}, ensure_ascii=False))
    raise SystemExit(1 if worst == advice.FAIL else 0)


def _print(name: str, finding: advice.Finding) -> None:
    verdict = click.style(f"{finding.verdict:4}", fg=_COLOURS[finding.verdict])
    click.echo(f"{verdict}  {name:<14} {finding.sentence}" + (f"  -> {finding.todo}" if finding.todo else ""))
