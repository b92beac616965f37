"""`storenode availability`: how much of the time this store was live, and when it was not."""

from __future__ import annotations

import json
from contextlib import closing
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import click

from storelink.contract.times import rfc3339
from storenode.commands.shared import SettingsOf, json_option, reported
from storenode.core import advice
from storenode.core.availability import DOWN, Interval, clipped, summed, usable_after
from storenode.errors import NotFound
from storenode.jobs.availability import SILENT_MS, intervals
from storenode.outbox.file import check_outbox, translated
from storenode.outbox.status import read_outbox
from storenode.replica import queries
from storenode.replica.status import daemon_alive

DAYS_MAX = 400
DAY_MS = 86_400_000


@click.command()
@click.option("--days", type=click.IntRange(1, DAYS_MAX), default=30, show_default=True, help="How far back.")
@click.option("--intervals", "listed", is_flag=True, help="List the intervals, too.")
@json_option
@click.pass_obj
@reported
def availability(settings: SettingsOf, days: int, listed: bool, as_json: bool) -> None:
    """Tell how much of the time each stream was live, usable, offline, and how long the outages were.

    An outage is an unbroken time in which a stream was not live. Works with the daemon dead.
    """
    found = settings()
    now_ms = queries.price_now_ms(found.db)
    since_ms = now_ms - days * DAY_MS
    recorded = _recorded(found.outbox_path)
    followed = {str(stream) for stream in found.streams()}
    working = daemon_alive(found.db)
    streams = {}
    for name, each in recorded.items():
        tail = _since(each[-1], now_ms, working=working, followed=name in followed)
        if parts := clipped([*each, *tail], since_ms, now_ms):
            streams[name] = _told(parts, listed=listed, usable=usable_after(each, since_ms))
    document = {"days": days, "since": rfc3339(since_ms), "until": rfc3339(now_ms), "streams": streams}
    if as_json:
        click.echo(json.dumps(document))
    else:
        _print(document)


def _recorded(path: Path) -> dict[str, list[Interval]]:
    """What the ledger has, by stream. Raises NotFound when there is none."""
    if not path.exists():
        raise NotFound(f"there is no outbox at {path}", hint="the daemon makes it: storenode run; check outbox / db")
    with translated(path), closing(read_outbox(path)) as db:
        check_outbox(db, path)
        found = sorted(intervals(db), key=attrgetter("stream"))
    if not found:
        raise NotFound("nothing is recorded yet", hint="the daemon records it: storenode run")
    return {name: list(each) for name, each in groupby(found, attrgetter("stream"))}


def _since(last: Interval, now_ms: int, *, working: bool, followed: bool) -> list[Interval]:
    """What was since the ledger was last written: the same, while a daemon is at work; else it was down."""
    if working and now_ms - last.until_ms <= SILENT_MS:
        return [Interval(last.stream, last.state, last.until_ms, now_ms)]
    return [Interval(last.stream, DOWN, last.until_ms, now_ms)] if followed else []


def _told(found: list[Interval], *, listed: bool, usable: bool) -> dict[str, Any]:
    total = summed(found, usable=usable)
    told: dict[str, Any] = {
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
        told["intervals"] = [
            {"state": i.state, "from": rfc3339(i.from_ms), "until": rfc3339(i.until_ms), "seconds": i.length_ms // 1000}
            for i in found
        ]
    return told


def _print(document: dict[str, Any]) -> None:
    shares = " ".join(f"{name:>9}" for name in ("LIVE", "USABLE", "OFFLINE", "DOWN"))
    click.echo(f"{'STREAM':<24} {'RECORDED':>10} {shares} {'OUTAGES':>8} LONGEST")
    for name, s in document["streams"].items():
        parts = " ".join(
            f"{'?' if s[key] is None else format(s[key], '.3f'):>8}%"
            for key in ("live_percent", "usable_percent", "offline_percent", "daemon_down_percent")
        )
        longest = advice.span(s["longest_outage_seconds"]) + f", {s['longest_outage_at']}" if s["outages"] else "-"
        click.echo(f"{name:<24} {advice.span(s['recorded_seconds']):>10} {parts} {s['outages']:>8} {longest}")
        for i in s.get("intervals", ()):
            click.echo(f"  {i['from']}  {i['until']}  {i['state']:<14} {advice.span(i['seconds'])}")
