"""`hq inbox` and `hq stores`: what stores sent, and how each of them stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import msgspec

from hq.collect.inbox import Kept, entries_after, inbox_path, reading, refusal_of, summary
from hq.collect.inbox import stores as read_stores
from hq.commands.shared import configured, json_option, print_json
from hq.commands.shared import settings as read_settings
from hq.master.store import Master
from storelink.contract import refusal
from storelink.contract.times import rfc3339

NO_LIMIT = 2**62
LISTED = 50


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
    with reading(inbox_path(read_settings().db)) as db:
        if as_json:
            print_json(_summed(summary(db) if db else {"cursor": 0, "stores": {}}))
            return
        found: Iterator[Kept] = iter(())
        if db is not None:
            if cursor is None and not ndjson:
                cursor = max(summary(db)["cursor"] - (limit or LISTED), 0)
            most = limit or (NO_LIMIT if ndjson else LISTED)
            found = entries_after(db, cursor or 0, most, store, kind)
        for entry in found:
            click.echo(_line(entry) if ndjson else _shown(entry))


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
    settings = read_settings()
    with reading(inbox_path(settings.db)) as db:
        found = read_stores(db) if db else {}
    with Master.open(settings.db, settings.registry) as master:
        heads = {str(row.stream): (row.epoch, row.head_seq) for row in master.streams()}
    document = {name: _store(each, heads) for name, each in found.items()}
    if as_json:
        print_json({"stores": document})
        return
    click.echo(f"{'STORE':<32} {'':<8} {'STATE':<14} {'SEEN AT':<20} {'BEHIND':>8} {'OUTBOX':>8} {'CLOCK':>9}")
    for name, facts in document.items():
        lags = [s["lag_events"] for s in facts["streams"].values()]
        behind = "?" if None in lags or not lags else str(sum(lags))
        pending = facts["outbox"]["pending"] if facts["outbox"] else "?"
        skew_s = facts["clock"]["skew_seconds"]
        clock = "?" if skew_s is None else f"{skew_s:+.1f} s"
        line = "online" if facts["online"] else "offline"
        since = f"{name:<32} {line:<8} {facts['state']:<14} {facts['seen_at']:<20}"
        click.echo(f"{since} {behind:>8} {pending:>8} {clock:>9}")
        for stream, said in facts["streams"].items():
            if said["refusal"]:
                click.echo(f"  {refusal.sentence(stream, said['refusal'])}\n  {refusal.todo(said['refusal'])}")


def _store(found: dict[str, Any], heads: dict[str, tuple[str, int]]) -> dict[str, Any]:
    said = found["status"] or {"state": "offline", "streams": {}, "outbox": None, "versions": {}}
    streams = {}
    for name, stream in said["streams"].items():
        epoch, head_seq = heads.get(name, (None, 0))
        lag = max(head_seq - stream["position"], 0) if stream["epoch"] == epoch or not stream["epoch"] else None
        streams[name] = stream | {"lag_events": lag, "refusal": refusal_of(stream)}
    skew_ms = said.get("skew_ms")
    return {
        "online": found["online"],
        "state": said["state"] if found["online"] else "offline",
        "seen_at": rfc3339(found["seen_at_ms"]),
        "streams": streams,
        "outbox": said["outbox"],
        "versions": said["versions"],
        "clock": {"skew_seconds": None if skew_ms is None else round(skew_ms / 1000, 3)},
    }


def _summed(document: dict[str, Any]) -> dict[str, Any]:
    for outboxes in document["stores"].values():
        for facts in outboxes.values():
            facts["seen_at"] = rfc3339(facts.pop("seen_at_ms"))
    return document


def _line(entry: Kept) -> str:
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


def _shown(entry: Kept) -> str:
    place = f"{entry.position:>9} {rfc3339(entry.at_ms)} {entry.store:<20} {entry.seq:>9}"
    return f"{place} {entry.type:<24} {entry.data[:60]}"
