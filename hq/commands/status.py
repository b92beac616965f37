"""`hq status`, `hq log`, `hq verify`: what HQ has, what happened, and whether it adds up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from hq.collect.fleet import verify_fleet
from hq.collect.inbox import inbox_path, reading
from hq.collect.inbox import stores as read_stores
from hq.commands.shared import configured, json_option, print_json, warn_of_left_out
from hq.commands.shared import settings as read_settings
from hq.errors import BadField
from hq.master import audit, lock
from hq.master.store import Master
from hq.publish.broker_heads import HINT, said_of
from hq.publish.publication import publication_path, read_published
from storelink.contract import refusal
from storelink.contract.streams import Stream
from storelink.contract.times import epoch_seconds, rfc3339

EXIT_DIFFERS = 2


@click.command()
@configured
@json_option
def status(as_json: bool) -> None:
    """Show every stream's state, and how much of it the broker has."""
    settings = read_settings()
    with Master.open(settings.db, settings.registry) as master:
        document = _status(master, settings.db)
        warn_of_left_out(master)
    document["broker"]["url"] = str(settings.broker)
    if as_json:
        print_json(document)
        return
    running = f"hq run is {'running' if document['running'] else 'not running'}"
    broker = f"broker {settings.broker} {'connected' if document['broker']['connected'] else 'not connected'}"
    click.echo(f"{running}, {broker}")
    _say_foreign(document["foreign"])
    click.echo(f"{'STREAM':<20} {'HEAD':>10} {'PUBLISHED':>10} {'ROWS':>10} {'SEGMENTS':>8}  DIGEST")
    for name, facts in document["streams"].items():
        click.echo(
            f"{name:<20} {facts['head_seq']:>10} {facts['published']:>10} {facts['rows']:>10}"
            f" {facts['segments']:>8}  {facts['digest']}"
        )


def _say_foreign(heads: dict[str, Any]) -> None:
    if not heads:
        return
    click.echo("hq run publishes nothing: the broker keeps heads of another master, and stores go by them")
    for name, head in heads.items():
        click.echo(f"  {name:<18} {said_of(head['epoch'], head['seq'], head['published_at'])}")
    click.echo(f"  it goes on when they are gone from the broker; or, with that hq run stopped: {HINT}")


def _status(master: Master, path: Path) -> dict[str, Any]:
    published = read_published(path)
    running = lock.runs(path)
    streams = {}
    for row in master.streams():
        sent = published["streams"].get(str(row.stream), {})
        if sent.get("epoch") != row.epoch:
            sent = {}
        streams[str(row.stream)] = {
            "epoch": row.epoch,
            "head_seq": row.head_seq,
            "published": sent.get("published", 0),
            "rows": row.rows,
            "digest": row.digest,
            "segments": sent.get("segments", 0),
            "retained_bytes": sent.get("retained_bytes", 0),
        }
    return {
        "streams": streams,
        "broker": {"connected": bool(running and published["connected"])},
        "foreign": {
            name: {"epoch": head["epoch"], "seq": head["seq"], "published_at": rfc3339(head["at_ms"])}
            for name, head in (published["foreign"] if running else {}).items()
        },
        "running": running,
        "pid": published["pid"] if running else None,
        "database": {"path": str(path), "bytes": _bytes(path), "publication_bytes": _bytes(publication_path(path))},
    }


def _bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in (path, path.with_name(path.name + "-wal")) if p.exists())


@click.command()
@click.option("--stream", help="Only this one, as context/scope.")
@click.option("--since", help="From this seq or time on; without it, the newest.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="Events at most.")
@configured
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def log(stream: str | None, since: str | None, limit: int, as_json: bool) -> None:
    """Print events: seq, time, what was done to which entity, and the fields that changed."""
    settings = read_settings()
    since_seq, since_ms = _since(since)
    with Master.open(settings.db, settings.registry) as master:
        wanted = Stream.parse(stream, settings.registry) if stream else None
        events = audit.logged(master, wanted, since_seq, since_ms, limit)
    for event in events:
        if as_json:
            print_json(event)
        else:
            key = "/".join(event["key"])
            click.echo(
                f"{event['stream']:<18} {event['seq']:>9} {event['time']} {event['op']:<6} {json.dumps(key)[1:-1]}"
                f"  {', '.join(event['changed'])}".rstrip()
            )


def _since(text: str | None) -> tuple[int | None, int | None]:
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
    settings = read_settings()
    with reading(inbox_path(settings.db)) as inbox:
        said = read_stores(inbox) if inbox else {}
    with Master.open(settings.db, settings.registry) as master:
        found = audit.verify(master)
        warn_of_left_out(master)
        fleet = verify_fleet(master, said)
    wrong = [(f"{s} {n}", each) for s, streams in fleet.items() for n, each in streams.items() if each["ok"] is False]
    ok = not wrong and not any(each.problems for each in found)
    if as_json:
        streams = {
            str(f.stream): {
                "ok": not f.problems,
                "head_seq": f.head_seq,
                "rows": f.rows,
                "digest": f.digest,
                "problems": list(f.problems),
            }
            for f in found
        }
        print_json({"ok": ok, "streams": streams, "stores": fleet})
    else:
        for each in found:
            verdict = "; ".join(each.problems) or f"{each.rows} rows, digest {each.digest}"
            click.echo(f"{'DIFFERS' if each.problems else 'ok':<8} {each.stream!s:<20} {verdict}")
        for name, facts in wrong:
            if facts["refusal"]:
                said_so = refusal.sentence(name, facts["refusal"])
                click.echo(f"REFUSES  {said_so}\n{'':9}{refusal.todo(facts['refusal'])}")
            else:
                click.echo(f"DIFFERS  {name}: not what the master had at that position; it rebuilds by itself")
        proven = sum(facts["ok"] is True for streams in fleet.values() for facts in streams.values())
        click.echo(f"{proven} streams of {len(fleet)} stores are as the master had them")
    ctx.exit(0 if ok else EXIT_DIFFERS)
