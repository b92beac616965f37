"""`hq status`, `hq log`, `hq verify`: what HQ has, what happened, and whether it adds up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from hq.commands.options import configured, json_option, open_catalog, read_settings
from hq.commands.output import print_json, warn_of_left_out
from hq.errors import BadField
from hq.publish.broker_heads import HINT, said_of
from hq.status import ForeignHead, Status, Verification
from storelink.contract import refusal
from storelink.contract.times import epoch_seconds

EXIT_DIFFERS = 2


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
@configured
@json_option
@click.pass_context
def verify(ctx: click.Context, as_json: bool) -> None:
    """Prove that rows, event log and digests agree, and that stores have what the master had. Exit code 2 if not.

    A store that refuses a message of HQ's again and again (REFUSES) does not come to where HQ is: exit code 2, too.

    \b
    hq verify
    hq verify --json     # of a store that refuses: "ok": false, "refusal": {"message", "range", "reason", ...}
    """
    with open_catalog(read_settings()) as catalog:
        found = catalog.verify()
        warn_of_left_out(catalog.left_out())
    if as_json:
        print_json(_verification_document(found))
    else:
        _say_verification(found)
    ctx.exit(0 if found.ok else EXIT_DIFFERS)


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
    return {"ok": found.ok, "streams": streams, "stores": found.stores}


def _say_verification(found: Verification) -> None:
    for each in found.streams:
        verdict = "; ".join(each.problems) or f"{each.rows} rows, digest {each.digest}"
        click.echo(f"{'DIFFERS' if each.problems else 'ok':<8} {each.stream!s:<20} {verdict}")
    proven = 0
    for store, streams in found.stores.items():
        for stream, said in streams.items():
            proven += said["ok"] is True
            name = f"{store} {stream}"
            if said["ok"] is False and said["refusal"]:
                sentence = refusal.sentence(name, said["refusal"])
                click.echo(f"REFUSES  {sentence}\n{'':9}{refusal.todo(said['refusal'])}")
            elif said["ok"] is False:
                click.echo(f"DIFFERS  {name}: not what the master had at that position; it rebuilds by itself")
    click.echo(f"{proven} streams of {len(found.stores)} stores are as the master had them")
