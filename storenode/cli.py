"""The `storenode` command: run the daemon, ask the replica.

Exit codes: 0 well; 1 an error; 2 wrong usage. `status` and `verify` judge the replica and have codes of their
own; what keeps them from judging is their code 3.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from storelink.contract.contexts import PRODUCT
from storelink.contract.money import money_text
from storenode.commands import api, availability, doctor, explain, jobs, outbox, overrides, verify
from storenode.commands.shared import (
    CannotJudge,
    Judging,
    SettingsOf,
    declared_context,
    json_option,
    reported,
    seconds_of,
)
from storenode.config import Settings, load


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="storenode")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of settings (STORENODE_CONFIG).")
@click.option("--db", help="The replica file (STORENODE_DB).")
@click.option("--store-id", help="This store's id (STORENODE_STORE_ID).")
@click.option("--broker", help="mqtt://host:1883 or mqtts://user:pw@host:8883 (STORENODE_BROKER).")
@click.option("--scopes", help="Scopes to follow, the most specific last: all,zone-west (STORENODE_SCOPES).")
@click.option("--root", help="First level of every topic (STORENODE_ROOT).")
@click.pass_context
def main(context: click.Context, /, config: Path | None, **options: str | None) -> None:
    """Keep a store's replica of the catalog, and ask it."""
    context.obj = SettingsOf(lambda: load(os.environ, config, options))


@main.command()
@click.pass_obj
@reported
def run(settings: SettingsOf) -> None:
    """Follow HQ: the daemon, in the foreground, until SIGTERM."""
    from storenode import daemon

    daemon.run(settings)


@main.command(cls=Judging)
@json_option
@click.option("--watch", is_flag=True, help="Show it anew every second, until Ctrl-C.")
@click.pass_obj
@reported
def status(settings: SettingsOf, as_json: bool, watch: bool) -> None:
    """Say how fresh this replica is; works with the daemon dead or hung.

    Exit code: 0 live and fresh; 1 usable but stale, offline or catching up; 2 not usable; 3 could not tell.
    With --watch: 0 on Ctrl-C.
    """
    from storenode.commands import status

    if as_json and watch:
        raise CannotJudge("--json and --watch do not go together")
    if watch:
        status.watch(settings())
        return
    raise SystemExit(status.show(settings(), as_json=as_json))


@main.command()
@click.argument("context")
@click.argument("key", nargs=-1, required=True)
@click.option("--scope", help="Only this scope; the most specific one that has the row if left out.")
@json_option
@click.pass_obj
@reported
def get(settings: SettingsOf, context: str, key: tuple[str, ...], scope: str | None, as_json: bool) -> None:
    """Print one row: `get product 4011`, `get price 4011 regular`."""
    from storenode.replica import queries

    found = settings()
    declared = declared_context(context, found)
    whole = key + tuple(str(c.default) for c in declared.keys[len(key) :] if c.default)
    if len(whole) != len(declared.keys):
        raise click.UsageError(f"a {context} is named by {' '.join(declared.key_names).upper()}")
    row = queries.get(found.db, declared, whole, scope)
    if as_json:
        click.echo(json.dumps(row, ensure_ascii=False))
        return
    for name, value in row.items():
        if value is not None:
            shown = value if isinstance(value, str | int) else json.dumps(value, ensure_ascii=False)
            click.echo(f"{name:14}{shown}")


@main.command()
@click.argument("sku")
@click.option("--at", "at", help="RFC 3339 time, as in 2026-12-24T08:00:00Z; now if left out.")
@json_option
@click.pass_obj
@reported
def price(settings: SettingsOf, sku: str, at: str | None, as_json: bool) -> None:
    """Print the price of SKU in force now, or at a time."""
    from storenode.replica import queries

    found = queries.price(settings().db, sku, None if at is None else seconds_of(at))
    if as_json:
        click.echo(json.dumps(found))
        return
    until = f" until {found['ends_at']}" if found["ends_at"] else ""
    amount = money_text(found["amount_minor"], found["currency"])
    click.echo(f"{found['sku']}  {amount}  ({found['kind']}, {found['scope']}){until}")


@main.command()
@click.option("--context", help="Rows of this context instead, which must be declared with columns to search.")
@click.argument("text", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(1, 1_000), default=20, show_default=True, help="Products at most.")
@json_option
@click.pass_obj
@reported
def search(settings: SettingsOf, context: str | None, text: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Find products by words of their name, brand, description, category, or by sku and gtin; best matches first.

    Words may be cut short (`org mil`) and accents left out. Exit code 0 also when nothing is found.
    """
    from storenode.replica import queries

    if context is not None and context != PRODUCT.name:
        _search_declared(settings(), context, " ".join(text), limit, as_json=as_json)
        return
    found = queries.search(settings().db, " ".join(text), limit)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    for row in found:
        price = "" if row["amount_minor"] is None else money_text(row["amount_minor"], row["currency"])
        title = " ".join(str(row[name]) for name in ("brand", "name", "pack_size") if row[name])
        click.echo(f"{row['sku']:<16}{price:>13}  {title}")
    if not found:
        click.echo("nothing found", err=True)


def _search_declared(settings: Settings, name: str, text: str, limit: int, *, as_json: bool) -> None:
    from storenode.replica import queries

    context = declared_context(name, settings)
    found = queries.search_context(settings.db, context, text, limit)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    for row in found:
        shown = (row[column] for column in (*context.key_names, *context.search))
        click.echo("  ".join(str(value) for value in shown if value is not None))
    if not found:
        click.echo("nothing found", err=True)


for command in (
    explain.explain,
    overrides.override,
    outbox.emit,
    outbox.outbox,
    api.api,
    availability.availability,
    doctor.doctor,
    verify.verify,
    verify.rebuild,
    verify.quarantine,
    jobs.jobs,
    jobs.backup,
    jobs.restore,
):
    main.add_command(command)

if __name__ == "__main__":
    main()
