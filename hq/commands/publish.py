"""`hq init` and `hq publish`: make the master, and change it by what is typed or piped in."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import click

from hq.catalog import Catalog, stream_named
from hq.commands.options import (
    check_stream,
    configured,
    context_argument,
    json_option,
    open_catalog,
    read_settings,
    scope_option,
)
from hq.commands.output import print_json
from hq.core.edits import check_names
from hq.core.feed_diff import FeedRow
from hq.errors import BadFeed, BadField
from hq.feeds.files import FEED_BYTES_MAX, ndjson_rows
from hq.master.records import Committed
from storelink.contract.contexts import Context

STDIN = "<stdin>"


@click.command()
@configured
@json_option
def init(as_json: bool) -> None:
    """Make the master, with an empty stream for every context."""
    settings = read_settings()
    with Catalog.create(settings.db, settings.registry) as catalog:
        streams = [str(row.stream) for row in catalog.streams()]
    if as_json:
        print_json({"db": str(settings.db), "created": catalog.is_new, "streams": streams})
    else:
        made = "made" if catalog.is_new else "was there already"
        click.echo(f"{settings.db}: {made}; streams {', '.join(streams)}")


@click.command()
@context_argument
@click.argument("fields", nargs=-1, metavar="FIELD=VALUE...")
@scope_option
@click.option("--delete", is_flag=True, help="Delete the entity that the key fields name.")
@click.option("--stdin", is_flag=True, help="Read fields as NDJSON, one entity a line; all become one change set.")
@click.option("--wait", is_flag=True, help="Return when the broker has it.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), default=30.0, show_default=True, help="Of --wait.")
@configured
@json_option
def publish(
    *,
    context: str,
    fields: tuple[str, ...],
    scope: str,
    delete: bool,
    stdin: bool,
    wait: bool,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Change one entity: fields that are not named stay, an empty value clears.

    \b
    hq publish product sku=4011 name=Bananas brand=
    hq publish price sku=4011 amount=1.99 currency=EUR
    hq publish price sku=4011 kind=promotion amount=1.49 starts_at=2026-12-01 ends_at=2026-12-08
    """
    if stdin == bool(fields):
        raise click.UsageError("name fields as FIELD=VALUE, or use --stdin")
    settings = read_settings()
    check_stream(context, scope, settings)
    if stdin:
        content = sys.stdin.buffer.read(FEED_BYTES_MAX)
        rows = list(ndjson_rows(content, STDIN, settings.registry[context], {}))
    else:
        rows = [FeedRow(0, _typed(settings.registry[context], fields))]
    with open_catalog(settings) as catalog:
        done = _commit(catalog, context, scope, rows, delete=delete)
        if wait:
            catalog.await_published(done, timeout_s)
    _report(done, True if wait else None, as_json=as_json)


def _typed(context: Context, words: Iterable[str]) -> dict[str, str | None]:
    fields: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise click.UsageError(f"{word[:80]!r} is not FIELD=VALUE")
        check_names(context, [name])
        if name in fields:
            raise BadField(name, "is named twice")
        fields[name] = value
    return fields


def _commit(catalog: Catalog, context: str, scope: str, rows: Iterable[FeedRow], *, delete: bool) -> Committed:
    """All rows in one change set; an error names the line of its row, if the row has one."""
    with catalog.change_set() as change_set:
        change = change_set.delete if delete else change_set.publish
        for row in rows:
            try:
                change(context, scope=scope, **row.fields)
            except BadField as error:
                if row.line:
                    raise BadFeed(STDIN, row.line, error.field, error.problem, hint=error.hint) from None
                raise
    if change_set.committed:
        return change_set.committed[0]
    stream = stream_named(catalog.contexts, context, scope)  # no rows at all
    found = catalog.stream(context, scope=scope)
    head_seq = 0 if found is None else found.head_seq
    return Committed(stream, head_seq + 1, head_seq)


def _report(done: Committed, published: bool | None, *, as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = {
            "stream": str(done.stream),
            "events": done.events,
            "first_seq": done.first_seq if done.events else None,
            "head_seq": done.head_seq,
            "published": published,
        }
        print_json(document)
    elif not done.events:
        click.echo(f"{done.stream}: no change, at {done.head_seq}")
    else:
        many = "event" if done.events == 1 else "events"
        click.echo(f"{done.stream}: {done.events} {many}, at {done.head_seq}{', published' if published else ''}")
