"""`storenode explain`: why a SKU costs what it costs, down to HQ's batch."""

from __future__ import annotations

import json
from typing import Any

import click

from storelink.contract.money import money_text
from storenode.commands.shared import SettingsOf, json_option, reported, seconds_of


@click.command()
@click.argument("sku")
@click.option("--at", "at", help="RFC 3339 time, as in 2026-12-24T08:00:00Z; now if left out.")
@json_option
@click.pass_obj
@reported
def explain(settings: SettingsOf, sku: str, at: str | None, as_json: bool) -> None:
    """Tell why SKU costs what it costs: every price that competes, what won and why, and where each came from."""
    from storenode.replica.explain import explain as told

    found = told(settings().db, sku, None if at is None else seconds_of(at))
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    if found["price"] is None:
        click.echo(f"{sku} has no price at {found['at']}")
    else:
        price = _amount(found["price"])
        click.echo(f"{sku} costs {price} at {found['at']}, in force here since {found['effective_at']}")
    for each in found["candidates"]:
        mark = "->" if each["won"] else "  "
        span = f"{each['starts_at']} to {each['ends_at'] or 'open'}"
        click.echo(f"{mark} {_amount(each):>14}  {each['kind']:<10} {each['scope']:<16} {span}")
        click.echo(f"     {'won' if each['won'] else 'not'}: {each['why']}")
        for line in _origin(each):
            click.echo(f"     {line}")
    for each in found["held"]:
        click.echo(f"in quarantine: the {each['kind']} price of {each['stream']}, seq {each['seq']}: {each['reason']}")
    click.echo(f"rule: {found['rule']}")


def _amount(each: dict[str, Any]) -> str:
    return money_text(each["amount_minor"], each["currency"])


def _origin(each: dict[str, Any]) -> list[str]:
    """Where a candidate came from, in lines."""
    commit, own = each["commit"], each["override"]
    if own is not None:
        early = ", ended before its time" if own["ended_early"] else ""
        return [f"set here at {own['set_at']} until {own['until']}{early}, outbox entry {own['seq']}: {own['reason']}"]
    if each["stream"] is None:
        return [f"set here, outbox entry {each['seq']}"]
    if commit is None:
        return [f"seq {each['seq']} of {each['stream']}; its commit is no longer kept"]
    how = "live" if commit["how"] == "live" else "in a catch-up, as of"
    published = commit["published_at"] or "an unknown time"
    span = f"{commit['first_seq']}-{commit['last_seq']}"
    return [
        f"seq {each['seq']} of {each['stream']}, epoch {commit['epoch']}; came with {span}, digest {commit['digest']}",
        f"published {how} {published}, received {commit['received_at']}, applied {commit['applied_at']}",
    ]
