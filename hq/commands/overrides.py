"""`hq overrides`: the prices that stores have set themselves."""

from __future__ import annotations

import click

from hq.collect import overrides as told
from hq.collect.inbox import inbox_path, reading
from hq.commands.shared import configured, json_option, now_ms, print_json
from hq.commands.shared import settings as read_settings
from storelink.contract.money import money_text
from storelink.contract.times import rfc3339


@click.command()
@click.option("--store", help="Only of this store.")
@configured
@json_option
def overrides(*, store: str | None, as_json: bool) -> None:
    """List the prices that stores have set themselves and that are in force, as far as they have told."""
    with reading(inbox_path(read_settings().db)) as db:
        found = told.in_force(db, now_ms() // 1000, store) if db is not None else []
    if as_json:
        print_json({"overrides": [_document(each) for each in found]})
        return
    for each in found:
        amount = money_text(each.amount_minor, each.currency)
        until = rfc3339(each.ends_at * 1000)
        click.echo(f"{each.store:<20} {_plain(each.sku):<16}{amount:>14}  until {until}  {_plain(each.reason[:80])}")
    if not found:
        click.echo("no store has told of an override in force", err=True)


def _plain(text: str) -> str:
    """What a store wrote, harmless on a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _document(each: told.StoreOverride) -> dict[str, str | int]:
    return {
        "store": each.store,
        "sku": each.sku,
        "amount_minor": each.amount_minor,
        "currency": each.currency,
        "starts_at": rfc3339(each.starts_at * 1000),
        "ends_at": rfc3339(each.ends_at * 1000),
        "reason": each.reason,
        "received_at": rfc3339(each.received_at_ms),
        "cursor": each.position,
    }
