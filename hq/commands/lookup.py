"""`hq get`, `price`, `search` and `export`: what the master itself holds."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import click

from hq.catalog import KINDS_OF_PRICE, SEARCH_LIMIT, SEARCH_LIMIT_MAX
from hq.commands.options import (
    arguments_as_options,
    check_stream,
    configured,
    context_argument,
    json_option,
    open_catalog,
    read_settings,
    scope_option,
)
from hq.commands.output import complain, print_json, printable
from hq.core.feed_export import Format
from hq.core.samples import time_text
from hq.lookup import Prices
from storelink.contract.money import money_text
from storelink.contract.precedence import Candidate
from storelink.host.privileges import Delivery

COLUMNS = 80
SCOPES_SHOWN = 5
SUFFIXES: dict[str, Format] = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
BYTES_PER_WRITE = 1 << 16


@click.command()
@context_argument
@click.argument("key", nargs=-1, required=True)
@scope_option
@configured
@json_option
def get(*, context: str, key: tuple[str, ...], scope: str, as_json: bool) -> None:
    """Print one row of the master, column by column.

    CONTEXT is product, price, or one that your chain declares. A price is named by SKU and kind; the kind is regular
    if left out.

    \b
    hq get product 4011
    hq get price 4011 promotion --scope zone-west
    """
    settings = read_settings()
    check_stream(context, scope, settings)
    with open_catalog(settings) as catalog, arguments_as_options({"scope": "--scope", "key": "KEY"}):
        row = catalog.get(context, key, scope=scope)
    if row is None:
        _refuse(f"HQ has no {context} {printable(' '.join(key))} in {scope}")
    if as_json:
        print_json(row)
        return
    for name, value in row.items():
        if value is not None:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            _say(f"{name + ' ':14}", printable(shown))


@click.command()
@click.argument("sku")
@click.option("--at", metavar="TIME", help="At this time, such as 2026-12-24T08:00:00Z. Default: now.")
@scope_option
@click.option("--kind", type=click.Choice(KINDS_OF_PRICE), help="Only price lines of this kind.")
@configured
@json_option
def price(*, sku: str, at: str | None, scope: str, kind: str | None, as_json: bool) -> None:
    """Print every price of a SKU that counts in a scope, the one in force first, and what decided.

    The price lines of SCOPE and of "all" compete, by the same precedence as in stores: the more specific scope, then
    promotion and clearance over regular, then the latest start, then the lower amount. A store that follows further
    scopes, or has set a price itself, may have another one: `storenode explain` there says.

    \b
    hq price 4011
    hq price 4011 --scope zone-west --at 2026-12-24T08:00:00Z
    """
    with open_catalog(read_settings()) as catalog, arguments_as_options({"scope": "--scope", "at": "--at"}):
        found = catalog.prices(sku, scope=scope, at=at, kind=kind)
    if as_json:
        print_json(_prices_document(found))
        return
    others = ", ".join(found.other_scopes[:SCOPES_SHOWN])
    if len(found.other_scopes) > SCOPES_SHOWN:
        others += f" and {len(found.other_scopes) - SCOPES_SHOWN} more"
    if not found.candidates:
        hint = f"other scopes have some: {others}" if others else ""
        _refuse(f"HQ has no {kind or 'price'} line of {printable(sku)} for {scope}", hint)
    won, at_text = found.in_force, _time(found.at_s)
    costs = "has no price" if won is None else f"costs {_money(won)}"
    _say("", f"{printable(sku)} {costs} in {scope} at {at_text}")
    for each in found.candidates:
        click.echo(f"{'->' if each.won else '  '} {_money(each):>14}  {each.line.kind:<10} {each.line.scope}")
        ends_at = each.step.ends_at
        click.echo(f"     from {time_text(each.step.starts_at)} " + (f"to {time_text(ends_at)}" if ends_at else "on"))
        _say("     ", f"{'won' if each.won else 'not'}: {each.why}")
    if others:
        _say("", f"other scopes have prices, too: {others}")


@click.command()
@click.argument("text", nargs=-1, required=True)
@scope_option
@click.option(
    "--limit",
    type=click.IntRange(1, SEARCH_LIMIT_MAX),
    default=SEARCH_LIMIT,
    show_default=True,
    help="Products at most.",
)
@configured
@json_option
def search(*, text: tuple[str, ...], scope: str, limit: int, as_json: bool) -> None:
    """Find products that have every word of TEXT in SKU, GTIN or name; accents and case do not count.

    A part of a word is enough. All products of the scope are read until enough are found: about a second for 100,000.
    Exit code 0 also when nothing is found.

    \b
    hq search cafe moulu
    hq search 40063813 --json
    """
    with open_catalog(read_settings()) as catalog, arguments_as_options({"scope": "--scope", "text": "TEXT"}):
        found = catalog.search(" ".join(text), scope=scope, limit=limit)
    if as_json:
        print_json({"products": found.products, "more": found.more})
        return
    for each in found.products:
        line = f"{each['sku']:<16} {each['gtin'] or '':<14} {each['name'] or ''}"
        click.echo(printable(line)[:COLUMNS].rstrip())
    if found.more:
        click.echo(f"there are more than {limit}: name more words, or raise --limit", err=True)
    elif not found.products:
        click.echo("nothing found", err=True)


@click.command()
@context_argument
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@scope_option
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["csv", "ndjson"]),
    help="Default: what FILE ends in, else csv.",
)
@configured
def export(*, context: str, file: Path | None, scope: str, file_format: Format | None) -> None:
    """Write all rows of a stream as a feed to FILE, which must not be there, or to the terminal or pipe.

    `hq import CONTEXT FILE --full` of what was written changes nothing. A price line is one row for each step of its
    schedule. CSV has an empty cell where there is no value, NDJSON has null.

    \b
    hq export product products.csv
    hq export price --scope zone-west --format ndjson | gzip > zone-west.ndjson.gz
    """
    wanted = file_format or (SUFFIXES.get(file.suffix.lower(), "csv") if file else "csv")
    if file is None:
        settings = read_settings()
        check_stream(context, scope, settings)
        with open_catalog(settings) as catalog, arguments_as_options({"scope": "--scope"}):
            _to_stdout(catalog.export(context, scope=scope, file_format=wanted))
        return
    delivery = Delivery(file.parent, lambda name: name == file.name)
    settings = read_settings(delivery)
    check_stream(context, scope, settings)
    with (
        open_catalog(settings) as catalog,
        arguments_as_options({"scope": "--scope"}),
        delivery.place(settings.db.parent) as directory,
    ):
        count = _to_file(catalog.export(context, scope=scope, file_format=wanted), directory / file.name, file)
        delivery.send(directory / file.name)
    rows = count - (wanted == "csv")
    click.echo(f"{file}: {rows:,} rows of {context}/{scope}")


def _to_stdout(lines: Iterable[str]) -> None:
    """As they are, so that a pipe gets a feed; on a terminal without control characters."""
    on_terminal = sys.stdout.isatty()
    for line in lines:
        sys.stdout.buffer.write(f"{printable(line[:-1])}\n".encode() if on_terminal else line.encode())
    sys.stdout.buffer.flush()


def _to_file(lines: Iterable[str], path: Path, named: Path) -> int:
    """Write all of it under another name first, so that a file with this name is complete; returns the lines."""
    if path.exists():
        _refuse(f"{named} is there already", "name another file, or remove it first")
    part = path.with_name(f"{path.name}.part")
    try:
        count = _write(lines, part)
        part.replace(path)
    except FileExistsError:
        _refuse(f"{part} is there already, from an export that did not end", "remove it")
    except OSError as error:
        _refuse(f"cannot write {part}: {error.strerror or error}", "check space, owner and mode of the directory")
    return count


def _write(lines: Iterable[str], path: Path) -> int:
    """Write lines to a new file, or leave none; returns how many there were."""
    count = 0
    with path.open("x", encoding="utf-8", newline="", buffering=BYTES_PER_WRITE) as out:
        try:
            for line in lines:
                out.write(line)
                count += 1
            out.flush()
            os.fsync(out.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return count


def _refuse(message: str, hint: str = "") -> NoReturn:
    complain(message, hint)
    raise click.exceptions.Exit(1)


def _prices_document(found: Prices) -> dict[str, Any]:
    won = found.in_force
    return {
        "sku": found.sku,
        "scope": found.scope,
        "at": _time(found.at_s),
        "price": None if won is None else _candidate_document(won),
        "candidates": [_candidate_document(each) for each in found.candidates],
        "other_scopes": list(found.other_scopes),
    }


def _candidate_document(each: Candidate) -> dict[str, Any]:
    ends_at = each.step.ends_at
    return {
        "scope": each.line.scope,
        "kind": each.line.kind,
        "currency": each.line.currency,
        "amount_minor": each.step.amount_minor,
        "starts_at": time_text(each.step.starts_at),
        "ends_at": None if ends_at is None else time_text(ends_at),
        "in_force": each.in_force,
        "won": each.won,
        "why": each.why,
        "seq": each.line.seq,
    }


def _money(each: Candidate) -> str:
    return money_text(each.step.amount_minor, each.line.currency)


def _time(at_s: int) -> str:
    return time_text(at_s)


def _say(head: str, text: str) -> None:
    """One or more lines of at most COLUMNS, further ones below the first word."""
    wrapped = textwrap.wrap(
        text, COLUMNS, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
    )
    click.echo("\n".join(wrapped) or head)
