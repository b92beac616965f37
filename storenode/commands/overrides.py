"""`storenode override`: a price that this store sets itself, until a time, whatever HQ publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from storelink.contract.money import money_text
from storenode.commands.conventions import SettingsOf, json_option, print_json, reported

if TYPE_CHECKING:
    from storenode.config import Settings
    from storenode.documents import ChangedOverride


@click.command()
@click.argument("sku", required=False)
@click.argument("amount", required=False)
@click.option("--until", metavar="TIME", help="When it ends: 2026-12-24T18:00:00Z or 2026-12-24T18:00+01:00.")
@click.option("--reason", metavar="TEXT", help="Why; HQ and `storenode explain` show it.")
@click.option("--currency", metavar="CODE", help="Of AMOUNT. Default: that of the price in force.")
@click.option("--withdraw", "withdrawn", is_flag=True, help="End the override of SKU now.")
@click.option("--force", is_flag=True, help="Allow a SKU that this replica does not know, or another currency.")
@json_option
@click.pass_obj
@reported
def override(
    settings: SettingsOf,
    *,
    sku: str | None,
    amount: str | None,
    until: str | None,
    reason: str | None,
    currency: str | None,
    withdrawn: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Set, withdraw or list prices of this store's own.

    An override wins over every price of HQ until it ends, also when the line or the daemon is down. HQ is told.
    AMOUNT is decimal: 1.49.

    \b
    storenode override 4011 1.49 --until 2026-12-24T18:00:00Z --reason "ripe"
    storenode override 4011 --withdraw
    storenode override
    """
    from storenode.outbox_client import Outbox

    found = settings()
    if sku is None:
        if withdrawn or until or reason or currency:
            raise click.UsageError("name the SKU")
        _list(found, as_json=as_json)
        return
    outbox = Outbox(found.outbox_path, replica=found.db, store_id=found.store_id, max_bytes=found.outbox_max_bytes)
    if withdrawn:
        if amount is not None or until or reason or currency:
            raise click.UsageError("--withdraw takes a SKU and nothing else")
        with outbox:
            done = outbox.withdraw_override(sku)
    else:
        if amount is None or until is None or reason is None:
            raise click.UsageError("an override needs AMOUNT, --until and --reason")
        with outbox:
            done = outbox.set_override(sku, amount, until=until, reason=reason, currency=currency, force=force)
    _print(done, as_json=as_json)


def _print(done: ChangedOverride, *, as_json: bool) -> None:
    if as_json:
        print_json(done)
    elif done["withdrawn"]:
        click.echo(f"the override of {done['sku']} ended at {done['ends_at']}")
    else:
        click.echo(f"{done['sku']} costs {money_text(done['amount_minor'], done['currency'])} until {done['ends_at']}")
    if not done["effective"]:
        click.echo("warning: accepted, but tills do not see it yet; they will once the daemon runs", err=True)
        click.echo("hint: systemctl start storenode, then storenode status", err=True)


def _list(settings: Settings, *, as_json: bool) -> None:
    from storenode.outbox_client import overrides_in_force

    rows = overrides_in_force(settings.outbox_path, settings.db)
    if as_json:
        print_json({"overrides": rows})
        return
    for each in rows:
        amount = money_text(each["amount_minor"], each["currency"])
        click.echo(f"{each['sku']:<16}{amount:>14}  until {each['ends_at']}")
        click.echo(f"     {each['reason']}" + ("" if each["told"] else " (HQ does not have it yet)"))
    if not rows:
        click.echo("no override is in force", err=True)
