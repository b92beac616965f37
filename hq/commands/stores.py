"""`hq inbox` and `hq stores`: what stores sent, and each store's last status."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import msgspec

from hq.catalog import ENTRIES_MAX
from hq.collect.fleet import StoreStatus
from hq.collect.inbox import InboxEntry, entries_after, inbox_path, reading, summary
from hq.commands.options import configured, json_option, open_catalog, read_settings
from hq.commands.output import print_json
from storelink.contract.status import refusal_hint, refusal_sentence
from storelink.contract.times import rfc3339

LISTED = 50
"""Entries that are listed for people if they name no limit."""


@click.command()
@click.option("--ndjson", is_flag=True, help="One JSON object a line, for a downstream job.")
@click.option("--after", "cursor", type=click.IntRange(0), help="Only entries behind this cursor.")
@click.option("--limit", type=click.IntRange(1), help="Entries at most; all with --ndjson, else 50.")
@click.option("--store", help="Only from this store.")
@click.option("--type", "kind", help="Only of this type.")
@configured
@json_option
def inbox(
    *, ndjson: bool, cursor: int | None, limit: int | None, store: str | None, kind: str | None, as_json: bool
) -> None:
    """List what stores sent, in the order in which it came; with --json, how much of it there is.

    \b
    hq inbox --ndjson --after "$CURSOR"     # then store the last line's cursor with what you made of the lines
    """
    if ndjson and as_json:
        raise click.UsageError("--ndjson lists entries, --json sums up: use one of them")
    with reading(inbox_path(read_settings().db)) as db:  # as `Catalog.inbox`, also while there is no sound master
        if as_json:
            print_json(_summary_document(summary(db) if db else {"cursor": 0, "stores": {}}))
            return
        found: Iterator[InboxEntry] = iter(())
        if db is not None:
            if cursor is None and not ndjson:
                cursor = max(summary(db)["cursor"] - (limit or LISTED), 0)
            found = entries_after(db, cursor or 0, limit or (ENTRIES_MAX if ndjson else LISTED), store, kind)
        for entry in found:
            click.echo(_ndjson_line(entry) if ndjson else _text_line(entry))


@click.command()
@configured
@json_option
def stores(as_json: bool) -> None:
    """Show each store's last status: online or not, state, how far behind, what waits in its outbox.

    Below a store: what it refuses of HQ's, since when and why.

    \b
    hq stores
    hq stores --json     # of a stream: "refusal": null, or {"message", "range", "reason", "why", "detail", ...}
    """
    with open_catalog(read_settings()) as catalog:
        found = catalog.stores()
    if as_json:
        print_json({"stores": {name: _store_document(each) for name, each in found.items()}})
        return
    click.echo(f"{'STORE':<32} {'':<8} {'STATE':<14} {'SEEN AT':<20} {'BEHIND':>8} {'OUTBOX':>8} {'CLOCK':>9}")
    for name, each in found.items():
        lags = [stream["lag_events"] for stream in each.streams.values()]
        behind = "?" if None in lags or not lags else str(sum(lags))
        pending = each.outbox["pending"] if each.outbox else "?"
        clock = "?" if each.skew_ms is None else f"{round(each.skew_ms / 1000, 3):+.1f} s"
        line = "online" if each.online else "offline"
        click.echo(f"{name:<32} {line:<8} {each.state:<14} {each.seen_at:<20} {behind:>8} {pending:>8} {clock:>9}")
        for stream, said in each.streams.items():
            if said["refusal"]:
                click.echo(f"  {refusal_sentence(stream, said['refusal'])}\n  {refusal_hint(said['refusal'])}")


def _store_document(each: StoreStatus) -> dict[str, Any]:
    return {
        "online": each.online,
        "state": each.state,
        "seen_at": each.seen_at,
        "streams": each.streams,
        "outbox": each.outbox,
        "versions": each.versions,
        "clock": {"skew_seconds": None if each.skew_ms is None else round(each.skew_ms / 1000, 3)},
    }


def _summary_document(document: dict[str, Any]) -> dict[str, Any]:
    for outboxes in document["stores"].values():
        for outbox in outboxes.values():
            outbox["seen_at"] = rfc3339(outbox.pop("seen_at_ms"))
    return document


def _ndjson_line(entry: InboxEntry) -> str:
    """The data stays spelled as the store spelled it."""
    fields = {
        "cursor": entry.position,
        "store": entry.store,
        "epoch": entry.epoch,
        "seq": entry.seq,
        "type": entry.type,
        "time": rfc3339(entry.at_ms),
        "data": msgspec.Raw(entry.data.encode()),
    }
    return msgspec.json.encode(fields).decode()


def _text_line(entry: InboxEntry) -> str:
    place = f"{entry.position:>9} {rfc3339(entry.at_ms)} {entry.store:<20} {entry.seq:>9}"
    return f"{place} {entry.type:<24} {entry.data[:60]}"
