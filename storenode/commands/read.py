"""`storenode get`, `price`, `search` and `explain`: what this replica says about a product or a price."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from storelink.contract.contexts import PRODUCT
from storelink.contract.money import money_text
from storenode.catalog import Catalog, name_of_price, open_catalog, or_not_found, seconds_of
from storenode.commands.conventions import SettingsOf, at_option, declared_context, json_option, print_json, reported
from storenode.errors import BadArgument

if TYPE_CHECKING:
    from storenode.config import Settings
    from storenode.documents import Candidate


COLUMNS = 80


def catalog_of(settings: Settings) -> Catalog:
    """The library, as the settings have it."""
    return open_catalog(settings.db, contexts=settings.registry, outbox=settings.outbox_path)


@click.command()
@click.argument("context")
@click.argument("key", nargs=-1, required=True)
@click.option("--scope", metavar="SCOPE", help="Only the row of this scope. Default: the most specific one.")
@json_option
@click.pass_obj
@reported
def get(settings: SettingsOf, context: str, key: tuple[str, ...], scope: str | None, as_json: bool) -> None:
    """Print one row as HQ published it.

    CONTEXT is `product`, `price`, or one that your chain declares. A price is named by SKU and kind; the kind is
    `regular` if left out.

    \b
    storenode get product 4011
    storenode get price 4011 promotion --scope zone-west
    """
    found = settings()
    declared_context(context, found)
    try:
        row = catalog_of(found).get(context, key, scope=scope)
    except BadArgument as error:
        raise click.UsageError(str(error)) from None
    place = f"scope {scope} of this replica" if scope else "this replica"
    row = or_not_found(row, f"{context} {' '.join(key)}", place)
    if as_json:
        print_json(row)
        return
    for name, value in row.items():
        if value is not None:
            shown = value if isinstance(value, str | int) else json.dumps(value, ensure_ascii=False)
            click.echo(f"{name:14}{shown}")


@click.command()
@click.argument("sku")
@at_option
@json_option
@click.pass_obj
@reported
def price(settings: SettingsOf, sku: str, at: str | None, as_json: bool) -> None:
    """Print the price of a SKU that is in force.

    \b
    storenode price 4011
    storenode price 4011 --at 2026-12-24T08:00:00Z
    """
    at_s = None if at is None else seconds_of(at)
    found = or_not_found(catalog_of(settings()).price(sku, at=at_s), name_of_price(sku, at_s))
    if as_json:
        print_json(found)
        return
    until = f" until {found['ends_at']}" if found["ends_at"] else ""
    amount = money_text(found["amount_minor"], found["currency"])
    click.echo(f"{found['sku']}  {amount}  ({found['kind']}, {found['scope']}){until}")


@click.command()
@click.argument("text", nargs=-1, required=True)
@click.option("--context", metavar="CONTEXT", help="Search rows of this context that your chain declares.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=20, show_default=True, help="At most so many.")
@json_option
@click.pass_obj
@reported
def search(settings: SettingsOf, context: str | None, text: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Find products by words; the best matches come first.

    Looks at name, brand, description, department, category, SKU and GTIN. The beginning of a word is enough, and
    accents may be left out. Exit code 0 also when nothing is found.

    \b
    storenode search org mil
    storenode search --context promotion summer
    """
    found = settings()
    if context is not None and context != PRODUCT.name:
        declared = declared_context(context, found)
        rows = catalog_of(found).search_rows(context, " ".join(text), limit=limit)
        lines = [
            "  ".join(str(row[name]) for name in (*declared.key_names, *declared.search) if row[name] is not None)
            for row in rows
        ]
        _print_found(rows, lines, as_json=as_json)
        return
    products = catalog_of(found).search(" ".join(text), limit=limit)
    lines = []
    for each in products:
        amount, currency = each["amount_minor"], each["currency"]
        price = "" if amount is None or currency is None else money_text(amount, currency)
        title = " ".join(part for part in (each["brand"], each["name"], each["pack_size"]) if part)
        lines.append(f"{each['sku']:<16}{price:>13}  {title}")
    _print_found(products, lines, as_json=as_json)


@click.command()
@click.argument("sku")
@at_option
@json_option
@click.pass_obj
@reported
def explain(settings: SettingsOf, sku: str, at: str | None, as_json: bool) -> None:
    """Explain why a SKU costs what it costs.

    Lists every price that competes, the winner first: what decided, and which change at HQ brought it here.

    \b
    storenode explain 4011
    storenode explain 4011 --at 2026-12-24T08:00:00Z
    """
    found = or_not_found(catalog_of(settings()).explain(sku, at=at), f"price line of {sku}")
    if as_json:
        print_json(found)
        return
    if found["price"] is None:
        click.echo(f"{sku} has no price at {found['at']}")
    else:
        amount = money_text(found["price"]["amount_minor"], found["price"]["currency"])
        click.echo(f"{sku} costs {amount} at {found['at']}")
        click.echo(f"in force here since {found['effective_at']}")
    for each in found["candidates"]:
        mark = "->" if each["won"] else "  "
        amount = money_text(each["amount_minor"], each["currency"])
        click.echo(f"{mark} {amount:>14}  {each['kind']:<10} {each['scope']}")
        click.echo(f"     from {each['starts_at']} " + (f"to {each['ends_at']}" if each["ends_at"] else "on"))
        click.echo(f"     {'won' if each['won'] else 'not'}: {each['why']}")
        for line in _origin(each):
            click.echo(f"     {line}")
    for held in found["held"]:
        click.echo(f"in quarantine: the {held['kind']} price of {held['stream']}, seq {held['seq']}: {held['reason']}")
    click.echo(click.wrap_text(f"rule: {found['rule']}", COLUMNS, subsequent_indent="      "))


def _print_found(rows: object, lines: list[str], *, as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    for line in lines:
        click.echo(line)
    if not lines:
        click.echo("nothing found", err=True)


def _origin(each: Candidate) -> list[str]:
    """Where a candidate came from, in lines."""
    commit, own = each["commit"], each["override"]
    if own is not None:
        early = ", ended before its time" if own["ended_early"] else ""
        return [
            f"set here at {own['set_at']} until {own['until']}{early}",
            f"outbox entry {own['seq']}: {own['reason']}",
        ]
    if each["stream"] is None:
        return [f"set here, outbox entry {each['seq']}"]
    if commit is None:
        return [f"seq {each['seq']} of {each['stream']}; its commit is no longer kept"]
    is_live = commit["how"] == "live"
    how, when = ("live", "published") if is_live else ("in a catch-up", "as HQ had it")
    return [
        f"seq {each['seq']} of {each['stream']}, epoch {commit['epoch']}",
        f"came {how} with {commit['first_seq']}-{commit['last_seq']}, digest {commit['digest']}",
        f"{when} {commit['published_at'] or 'at an unknown time'}",
        f"received {commit['received_at']}, applied {commit['applied_at']}",
    ]
