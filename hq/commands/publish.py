"""`hq init` and `hq publish`: the master's making, and single change sets typed or piped in."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

import click

from hq.commands.shared import configured, context_argument, json_option, now_ms, print_json, scope_option, stream_of
from hq.commands.shared import settings as read_settings
from hq.config import Settings
from hq.core import edits
from hq.core.changes import Change
from hq.core.feed_diff import FeedRow
from hq.errors import BadFeed, BadField, NotPublished
from hq.feeds.files import FEED_BYTES_MAX, ndjson_rows
from hq.master import lock
from hq.master.store import Committed, Master
from hq.publish.publication import read_published
from storelink.contract.contexts import Context, Key, Row
from storelink.contract.streams import Stream

POLL_S = 0.02
STDIN = "<stdin>"


@click.command()
@configured
@json_option
def init(as_json: bool) -> None:
    """Make the master, with an empty stream for every context."""
    settings = read_settings()
    made = Master.create(settings.db, settings.registry, now_ms())
    with Master.open(settings.db, settings.registry) as master:
        with master.writing():
            pass  # a master that was there takes in what was declared since
        streams = [str(row.stream) for row in master.streams()]
    if as_json:
        print_json({"db": str(settings.db), "created": made, "streams": streams})
    else:
        click.echo(f"{settings.db}: {'made' if made else 'was there already'}; streams {', '.join(streams)}")


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
    stream = stream_of(context, scope, settings)
    declared = stream.context
    if stdin:
        content = sys.stdin.buffer.read(FEED_BYTES_MAX)
        rows = list(ndjson_rows(content, STDIN, declared, {}))
    else:
        rows = [FeedRow(0, _typed(declared, fields))]
    with Master.open(settings.db, settings.registry) as master:
        done = _commit(master, stream, rows, delete=delete)
    published = _await_published(settings, done, timeout_s) if wait else None
    _report(done, published, as_json=as_json)


def _typed(context: Context, words: Iterable[str]) -> dict[str, str | None]:
    fields: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise click.UsageError(f"{word[:80]!r} is not FIELD=VALUE")
        edits.check_names(context, [name])
        if name in fields:
            raise BadField(name, "is named twice")
        fields[name] = value
    return fields


def _commit(master: Master, stream: Stream, rows: Iterable[FeedRow], *, delete: bool) -> Committed:
    """Edit what is there now and commit, in one transaction: two desks never overwrite each other's fields."""
    at_ms = now_ms()
    context = stream.context
    with master.writing():
        after: dict[Key, Row | None] = {}
        for row in rows:
            try:
                key = edits.key_of(context, row.fields)
                if key not in after:
                    found = master.stored(stream, key)
                    after[key] = None if found is None or found.deleted else context.values_of(found.row)
                if delete:
                    _check_only_key(context, row)
                    after[key] = None
                else:
                    after[key] = edits.edited(context, row.fields, after[key], at_ms // 1000)
            except BadField as error:
                if row.line:
                    raise BadFeed(STDIN, row.line, error.field, error.problem, hint=error.hint) from None
                raise
        return master.commit(stream, [Change(key, values) for key, values in after.items()], at_ms)


def _check_only_key(context: Context, row: FeedRow) -> None:
    for name in row.fields.keys() - set(context.key_names):
        raise BadField(name, "has no place in a delete", hint=f"name only {', '.join(context.key_names)}")


def _await_published(settings: Settings, done: Committed, timeout_s: float) -> bool:
    """Return True once broker has it. Raises NotPublished after `timeout_s`; the commit stands either way."""
    with Master.open(settings.db, settings.registry) as master:
        row = master.stream(done.stream)
    until = time.monotonic() + timeout_s
    while True:
        found = read_published(settings.db)["streams"].get(str(done.stream), {})
        if row is not None and found.get("epoch") == row.epoch and found.get("published", 0) >= done.head_seq:
            return True
        if time.monotonic() >= until:
            break
        time.sleep(POLL_S)
    hint = "check the broker: hq status" if lock.runs(settings.db) else "start it: hq run"
    raise NotPublished(
        f"{done.stream} {done.head_seq} is committed, but not published after {timeout_s:g} s", hint=hint
    )


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
