"""The screen of `storenode status`: how this store stands, on one screen, as JSON, or live."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from storenode.config import Settings
from storenode.core import advice, states
from storenode.errors import StorenodeError
from storenode.outbox.status import outbox_status
from storenode.replica.status import beside_document, status_document

EVERY_S = 1.0
WIDTH_IN_A_PIPE = 1_000
"""Lines are not folded in a pipe: one fact stays one line for grep."""

_COLOURS = {advice.OK: "green", advice.WARN: "yellow", advice.FAIL: "red"}


def show(settings: Settings, *, as_json: bool) -> int:
    """Print how this replica stands; returns the exit code."""
    document = _document(settings)
    if as_json:
        click.echo(json.dumps(document))
    else:
        _console().print(_screen(document | beside_document(settings.db)))
    return states.exit_code(document["state"])


def watch(settings: Settings) -> None:
    """Show it anew every second, until Ctrl-C; in a pipe, one screen after the other."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
    console = _console()
    try:
        if not console.is_terminal:
            while True:
                console.print(_now(settings))
                time.sleep(EVERY_S)
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(_now(settings), refresh=True)
                time.sleep(EVERY_S)
    except KeyboardInterrupt:
        return


def _document(settings: Settings) -> dict[str, Any]:
    found = status_document(settings.db, settings.registry) | {"outbox": outbox_status(settings.outbox_path)}
    return {"store_id": found.pop("store_id"), "state": states.overall(found["streams"]), **found}


def _now(settings: Settings) -> RenderableType:
    """The screen, or why there is none: a replica that is not there yet may come."""
    try:
        return _screen(_document(settings) | beside_document(settings.db))
    except StorenodeError as error:
        return _told(advice.Finding(advice.FAIL, str(error), error.hint))


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH_IN_A_PIPE)


def _screen(facts: dict[str, Any]) -> RenderableType:
    findings = advice.advise(facts)
    colour = _COLOURS[(advice.OK, advice.WARN, advice.FAIL)[states.exit_code(facts["state"])]]
    line = "connected" if facts["connected"] else "not connected"
    daemon = f"pid {facts['pid']}, up {advice.span(facts['uptime_seconds'])}" if facts["pid"] else "daemon not running"
    first = Text.assemble(
        (facts["store_id"] or "this store", "bold"), "  ", (facts["state"], f"bold {colour}"), f"  {line}, {daemon}"
    )
    told = [_told(f) for f in findings] or [Text("All is well.", "green")]
    return Group(first, _streams(facts["streams"]), *_rest(facts), *told)


def _streams(streams: dict[str, Any]) -> Table:
    table = Table("stream", "state", "position", "behind", "rows", "as of", "digest", box=None, pad_edge=False)
    for name, s in streams.items():
        state = Text(states.overall({name: s}))
        unusable = states.exit_code(state.plain) == states.UNUSABLE
        state.stylize("green" if state.plain == "live" else "red" if unusable else "yellow")
        table.add_row(
            name,
            state,
            str(s["position"]),
            str(s["lag_events"]),
            str(s["rows"]),
            s["as_of"] or "never",
            s["digest"][:12],
        )
    return table


def _rest(facts: dict[str, Any]) -> list[Text]:
    database, outbox, clock = facts["database"], facts["outbox"], facts["clock"]
    lines = [("search", f"{name}: {state}") for name, state in facts["read_models"].items()]
    if outbox["pending"] is None:
        lines.append(("outbox", "cannot be read"))
    else:
        age_s = outbox["oldest_age_seconds"]
        oldest = "" if age_s is None else f", the oldest for {advice.span(age_s)}"
        lines.append(("outbox", f"{outbox['pending']} wait for HQ{oldest}; {outbox['refused']} set aside"))
    lines.append(("clock", _clock(clock)))
    sizes = (advice.size(database[key]) for key in ("bytes", "wal_bytes", "free_bytes"))
    lines.append(("disk", "{} and {} of log; {} free".format(*sizes)))
    return [Text.assemble((f"{name:8}", "dim"), value) for name, value in lines]


def _clock(found: dict[str, Any]) -> str:
    skew_s, correction_s = found["skew_seconds"], found.get("correction_seconds", 0)
    said = "not compared with HQ's" if skew_s is None else f"{skew_s:+} s against HQ's"
    if correction_s:
        return f"{said}; {found['verdict']}, prices go by {correction_s:+} s"
    return said if found.get("verdict", "ok") in ("ok", "unconfirmed") else f"{said}; {found['verdict']}"


def _told(finding: advice.Finding) -> Text:
    text = Text.assemble((f"{finding.verdict:6}", f"bold {_COLOURS[finding.verdict]}"), finding.sentence)
    return text.append(f"\n      -> {finding.todo}", "bold") if finding.todo else text
