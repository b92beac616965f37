"""`storenode availability`: how much of the time this store was live, and when it was not."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import click

from storelink.contract.times import rfc3339
from storenode.commands.conventions import SettingsOf, json_option, print_json, reported
from storenode.core import advice
from storenode.core.availability import DOWN, Interval, clipped, summed, usable_after
from storenode.errors import NotFound
from storenode.jobs.availability import SILENT_MS, intervals
from storenode.outbox_client import reading_outbox
from storenode.replica import queries
from storenode.replica.status import daemon_alive

DAYS_MAX = 400
DAY_MS = 86_400_000


@click.command()
@click.option("--days", type=click.IntRange(1, DAYS_MAX), default=30, show_default=True, help="How far back.")
@click.option("--intervals", "listed", is_flag=True, help="List each interval and its state, too.")
@json_option
@click.pass_obj
@reported
def availability(settings: SettingsOf, days: int, listed: bool, as_json: bool) -> None:
    """Show how much of the time each stream was live.

    Also usable, offline, or without a daemon (DOWN), and how long the outages were. An outage is an unbroken time in
    which a stream was not live. Works also when the daemon does not run.

    \b
    storenode availability
    storenode availability --days 7 --intervals
    """
    found = settings()
    until_ms = queries.price_now_ms(found.db)
    since_ms = until_ms - days * DAY_MS
    recorded = _recorded(found.outbox_path)
    followed = {str(stream) for stream in found.streams()}
    working = daemon_alive(found.db)
    streams = {}
    for name, each in recorded.items():
        tail = _since(each[-1], until_ms, working=working, followed=name in followed)
        if parts := clipped([*each, *tail], since_ms, until_ms):
            streams[name] = _summary(parts, listed=listed, usable=usable_after(each, since_ms))
    document = {"days": days, "since": rfc3339(since_ms), "until": rfc3339(until_ms), "streams": streams}
    if as_json:
        print_json(document)
    else:
        _print(document)


def _recorded(path: Path) -> dict[str, list[Interval]]:
    """The availability log, by stream. Raises NotFound: there is none yet."""
    if not path.exists():
        hint = "the daemon makes it: systemctl start storenode; or check --db"
        raise NotFound(f"there is no outbox at {path}", hint=hint)
    with reading_outbox(path) as db:
        found = sorted(intervals(db), key=attrgetter("stream"))
    if not found:
        raise NotFound("nothing is recorded yet", hint="the daemon records it: systemctl start storenode")
    return {name: list(each) for name, each in groupby(found, attrgetter("stream"))}


def _since(last: Interval, until_ms: int, *, working: bool, followed: bool) -> list[Interval]:
    """The time since the log was last written: in the same state if a daemon is at work; else it was down."""
    if working and until_ms - last.until_ms <= SILENT_MS:
        return [Interval(last.stream, last.state, last.until_ms, until_ms)]
    return [Interval(last.stream, DOWN, last.until_ms, until_ms)] if followed else []


def _summary(found: list[Interval], *, listed: bool, usable: bool) -> dict[str, Any]:
    total = summed(found, usable=usable)
    summary: dict[str, Any] = {
        "recorded_seconds": total.recorded_ms // 1000,
        "live_percent": total.percent(total.states_ms.get("live", 0)),
        "usable_percent": total.percent(total.usable_ms),
        "offline_percent": total.percent(total.states_ms.get("offline", 0)),
        "daemon_down_percent": total.percent(total.states_ms.get(DOWN, 0)),
        "outages": total.outages,
        "longest_outage_seconds": (total.longest[1] - total.longest[0]) // 1000 if total.longest else 0,
        "longest_outage_at": rfc3339(total.longest[0]) if total.longest else None,
        "states": {state: ms // 1000 for state, ms in total.states_ms.items()},
    }
    if listed:
        summary["intervals"] = [
            {"state": i.state, "from": rfc3339(i.from_ms), "until": rfc3339(i.until_ms), "seconds": i.length_ms // 1000}
            for i in found
        ]
    return summary


def _print(document: dict[str, Any]) -> None:
    streams = document["streams"]
    width = max([len("STREAM"), *map(len, streams)])
    shares = " ".join(f"{name:>7}" for name in ("LIVE", "USABLE", "OFFLINE", "DOWN"))
    click.echo(f"{'STREAM':<{width}} {'RECORDED':>10} {shares} {'OUTAGES':>7} LONGEST")
    for name, s in streams.items():
        parts = " ".join(
            f"{'?' if s[key] is None else format(s[key], '.2f'):>6}%"
            for key in ("live_percent", "usable_percent", "offline_percent", "daemon_down_percent")
        )
        longest = advice.span(s["longest_outage_seconds"]) if s["outages"] else "-"
        click.echo(f"{name:<{width}} {advice.span(s['recorded_seconds']):>10} {parts} {s['outages']:>7} {longest}")
        if s["outages"]:
            click.echo(f"  the longest outage began at {s['longest_outage_at']}")
        for i in s.get("intervals", ()):
            click.echo(f"  {i['from']}  {i['until']}  {i['state']:<14} {advice.span(i['seconds'])}")
