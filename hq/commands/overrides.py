"""`hq overrides`: the prices that stores have set themselves."""

from __future__ import annotations

import click

from hq.catalog import wall_ms
from hq.collect.inbox import inbox_path, reading
from hq.collect.overrides import StoreOverride, in_force
from hq.commands.options import configured, json_option, read_settings
from hq.commands.output import print_json, printable
from storelink.contract.money import money_text
from storelink.contract.times import rfc3339


@click.command()
@click.option("--store", help="Only of this store.")
@configured
@json_option
def overrides(*, store: str | None, as_json: bool) -> None:
    """List the prices that stores have set themselves and that are in force, as far as stores have reported them."""
    with reading(inbox_path(read_settings().db)) as db:  # as `Catalog.overrides`, also while there is no sound master
        found = [] if db is None else in_force(db, wall_ms() // 1000, store)
    if as_json:
        print_json({"overrides": [_document(each) for each in found]})
        return
    for each in found:
        amount = money_text(each.amount_minor, each.currency)
        until = rfc3339(each.ends_at * 1000)
        sku, reason = printable(each.sku), printable(each.reason[:80])
        click.echo(f"{each.store:<20} {sku:<16}{amount:>14}  until {until}  {reason}")
    if not found:
        click.echo("no store has reported an override in force", err=True)


def _document(each: StoreOverride) -> dict[str, str | int]:
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
