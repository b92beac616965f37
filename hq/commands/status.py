"""`hq status`, `hq log`, `hq verify`: what HQ has, what happened, and whether it adds up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from hq.collect.fleet import FleetState
from hq.commands.options import configured, json_option, open_catalog, read_settings
from hq.commands.output import print_json, warn_of_left_out
from hq.errors import BadField
from hq.publish.broker_heads import HINT, said_of
from hq.status import ForeignHead, Status, Verification
from storelink.contract.status import refusal_hint, refusal_sentence
from storelink.contract.times import epoch_seconds

EXIT_DIFFERS = 2
EXIT_NOT_CURRENT = 3
"""With `--strict`: nothing differs, but a store is behind or never was complete."""


@click.command()
@configured
@json_option
def status(as_json: bool) -> None:
    """Show every stream's state, and how much of it the broker has."""
    settings = read_settings()
    with open_catalog(settings) as catalog:
        found = catalog.status()
    warn_of_left_out(found.left_out)
    if as_json:
        print_json(_status_document(found, str(settings.broker)))
        return
    running = f"hq run is {'running' if found.running else 'not running'}"
    click.echo(f"{running}, broker {settings.broker} {'connected' if found.connected else 'not connected'}")
    _say_foreign(found.foreign)
    click.echo(f"{'STREAM':<20} {'HEAD':>10} {'PUBLISHED':>10} {'ROWS':>10} {'SEGMENTS':>8}  DIGEST")
    for name, stream in found.streams.items():
        click.echo(
            f"{name:<20} {stream.head_seq:>10} {stream.published:>10} {stream.rows:>10}"
            f" {stream.segments:>8}  {stream.digest}"
        )


def _status_document(found: Status, broker: str) -> dict[str, Any]:
    return {
        "streams": {name: asdict(stream) for name, stream in found.streams.items()},
        "broker": {"connected": found.connected, "url": broker},
        "foreign": {name: asdict(head) for name, head in found.foreign.items()},
        "running": found.running,
        "pid": found.pid,
        "database": {
            "path": str(found.path),
            "bytes": found.size_bytes,
            "publication_bytes": found.publication_bytes,
        },
    }


def _say_foreign(heads: Mapping[str, ForeignHead]) -> None:
    if not heads:
        return
    click.echo("hq run publishes nothing: the broker keeps heads of another master, and stores go by them")
    for name, head in heads.items():
        click.echo(f"  {name:<18} {said_of(head.epoch, head.seq, head.published_at)}")
    click.echo(f"  it goes on when they are gone from the broker; or, with that hq run stopped: {HINT}")


@click.command()
@click.option("--stream", help="Only this one, as context/scope.")
@click.option("--since", help="From this seq or time on; without it, the newest.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="Events at most.")
@configured
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def log(stream: str | None, since: str | None, limit: int, as_json: bool) -> None:
    """Print events: seq, time, what was done to which entity, and the fields that changed."""
    settings = read_settings()
    since_seq, since_ms = _parse_since(since)
    with open_catalog(settings) as catalog:
        events = catalog.log(stream, since_seq=since_seq, since_ms=since_ms, limit=limit)
    for event in events:
        if as_json:
            print_json(asdict(event))
        else:
            key = json.dumps("/".join(event.key))[1:-1]
            changed = ", ".join(event.changed)
            click.echo(f"{event.stream:<18} {event.seq:>9} {event.time} {event.op:<6} {key}  {changed}".rstrip())


def _parse_since(text: str | None) -> tuple[int | None, int | None]:
    """A seq, or a time in milliseconds since 1970."""
    if text is None:
        return None, None
    if text.isascii() and text.isdigit() and len(text) < 19:
        return int(text), None
    try:
        return None, epoch_seconds(text) * 1000
    except ValueError as error:
        raise BadField("--since", f"must be a seq or a time; {error}") from None


@click.command()
@click.option("--strict", is_flag=True, help="Exit code 3 if a store is behind, or never was complete.")
@configured
@json_option
@click.pass_context
def verify(ctx: click.Context, *, strict: bool, as_json: bool) -> None:
    """Prove that rows, event log and digests agree, and compare what each store last said of its streams with the log.

    A stream of a store is current; BEHIND: at an earlier position; NEVER: it never was complete, so there is nothing to
    compare; DIFFERS: not what the master had; or REFUSES: it refuses a message of HQ's again and again.

    Exit code 2: something differs or refuses. Behind and never are no error, since some store of a chain is always
    switched off; with --strict their exit code is 3.

    \b
    hq verify
    hq verify --strict   # every store has everything, or exit code 2 or 3
    hq verify --json     # of each stream of a store: "state", "ok", "refusal", ...
    """
    with open_catalog(read_settings()) as catalog:
        found = catalog.verify()
        warn_of_left_out(catalog.left_out())
    if as_json:
        print_json(_verification_document(found))
    else:
        _say_verification(found)
    if not found.ok:
        ctx.exit(EXIT_DIFFERS)
    ctx.exit(EXIT_NOT_CURRENT if strict and not found.all_current else 0)


def _verification_document(found: Verification) -> dict[str, Any]:
    streams = {
        str(each.stream): {
            "ok": not each.problems,
            "head_seq": each.head_seq,
            "rows": each.rows,
            "digest": each.digest,
            "problems": list(each.problems),
        }
        for each in found.streams
    }
    return {"ok": found.ok, "counts": found.counts, "streams": streams, "stores": found.stores}


SAID_OF: Mapping[FleetState, str] = {
    "current": "current",
    "behind": "behind",
    "never": "never complete",
    "differs": "different",
    "refuses": "refusing",
}


def _say_verification(found: Verification) -> None:
    for each in found.streams:
        verdict = "; ".join(each.problems) or f"{each.rows} rows, digest {each.digest}"
        click.echo(f"{'DIFFERS' if each.problems else 'ok':<8} {each.stream!s:<20} {verdict}")
    for store, streams in found.stores.items():
        if not streams:
            click.echo(f"NEVER    {store}: it has not said yet what it has")
        for stream, said in streams.items():
            _say_store(f"{store} {stream}", said)
    if not found.stores:
        click.echo("no store has reported yet")
        return
    counts = [f"{many} {SAID_OF[state]}" for state, many in found.counts.items() if many]
    total = f"{sum(found.counts.values())} streams of {len(found.stores)} stores"
    click.echo(f"{total}: {', '.join(counts)}" if counts else total)


def _say_store(name: str, said: Mapping[str, Any]) -> None:
    """One line for what is not current; two for a refusal."""
    match said["state"]:
        case "refuses":
            sentence = refusal_sentence(name, said["refusal"])
            click.echo(f"REFUSES  {sentence}\n{'':9}{refusal_hint(said['refusal'])}")
        case "differs":
            click.echo(f"DIFFERS  {name}: not what the master had at that position; it rebuilds by itself")
        case "never" if said["head_seq"] is None:
            click.echo(f"NEVER    {name}: HQ has no such stream")
        case "never":
            click.echo(f"NEVER    {name}: it never was complete")
        case "behind" if said["ok"] is None:
            click.echo(f"BEHIND   {name}: of another epoch than the master's; it rebuilds by itself")
        case "behind":
            click.echo(f"BEHIND   {name}: at {said['position']} of {said['head_seq']}, as the master had it there")
