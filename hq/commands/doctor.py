"""`hq doctor`: one line for each check, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

import click

from hq.commands.options import configured, json_option, read_settings
from hq.commands.output import print_json
from hq.doctor import FAIL, OK, WARN, Check, checks
from hq.errors import BadSettings

_COLOURS = {OK: "green", WARN: "yellow", FAIL: "red"}


@click.command()
@configured
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check configuration, master, disk, `hq run`, broker and what it keeps; say what is wrong and what to do.

    Changes nothing. Exit code: 0 all is well, or can wait; 1 something must be done.
    """
    found = []
    for check in _checks():
        found.append(check)
        if not as_json:
            verdict = click.style(f"{check.verdict:4}", fg=_COLOURS[check.verdict])
            click.echo(f"{verdict}  {check.name:<14} {check.sentence}" + (f"  -> {check.todo}" if check.todo else ""))
    worst = next(v for v in (FAIL, WARN, OK) if any(check.verdict == v for check in found))
    if as_json:
        documents = [{"check": c.name, "verdict": c.verdict, "sentence": c.sentence, "todo": c.todo} for c in found]
        print_json({"verdict": worst, "checks": documents})
    ctx.exit(1 if worst == FAIL else 0)


def _checks() -> Iterator[Check]:
    try:
        settings = read_settings()
    except BadSettings as error:
        yield Check("configuration", FAIL, f"{error}.", "correct it, then systemctl restart hq")
    else:
        yield from checks(settings)
