"""The screen of `storenode status`: what is known of the store, then what is wrong, the worst first."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from storenode.catalog import Catalog
from storenode.core import advice, states
from storenode.documents import Status
from storenode.errors import StorenodeError
from storenode.replica.status import beside_document

EVERY_S = 1.0
WIDTH_IN_A_PIPE = 1_000
"""Lines are not folded in a pipe: one fact stays one line for grep."""

_COLOURS = {advice.OK: "green", advice.WARN: "yellow", advice.FAIL: "red"}


def show(catalog: Catalog, found: Status) -> None:
    """Print one screen."""
    _console().print(_screen(_shown(catalog, found)))


def watch(catalog: Catalog) -> None:
    """Show it anew every second, until Ctrl-C; in a pipe, one screen after the other."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
    console = _console()
    try:
        if not console.is_terminal:
            while True:
                console.print(_now(catalog))
                time.sleep(EVERY_S)
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(_now(catalog), refresh=True)
                time.sleep(EVERY_S)
    except KeyboardInterrupt:
        return


def _now(catalog: Catalog) -> RenderableType:
    """The screen, or why there is none: a replica that is not there yet may come."""
    try:
        return _screen(_shown(catalog, catalog.status()))
    except StorenodeError as error:
        return _finding(advice.Finding(advice.FAIL, str(error), error.hint))


def _shown(catalog: Catalog, found: Status) -> dict[str, Any]:
    return dict(found) | beside_document(catalog.path)


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH_IN_A_PIPE)


def _screen(status: Mapping[str, Any]) -> RenderableType:
    findings = advice.advise(status)
    colour = _COLOURS[(advice.OK, advice.WARN, advice.FAIL)[states.exit_code(status["state"])]]
    line = "connected" if status["connected"] else "not connected"
    daemon = (
        f"pid {status['pid']}, up {advice.span(status['uptime_seconds'])}" if status["pid"] else "daemon not running"
    )
    first = Text.assemble(
        (status["store_id"] or "this store", "bold"), "  ", (status["state"], f"bold {colour}"), f"  {line}, {daemon}"
    )
    wrong = [_finding(f) for f in findings] or [Text("All is well.", "green")]
    return Group(first, _streams(status["streams"]), *_rest(status), *wrong)


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


def _rest(status: Mapping[str, Any]) -> list[Text]:
    database, outbox, clock = status["database"], status["outbox"], status["clock"]
    lines = [("search", f"{name}: {state}") for name, state in status["read_models"].items()]
    if outbox["pending"] is None:
        lines.append(("outbox", "cannot be read"))
    else:
        age_s = outbox["oldest_age_seconds"]
        oldest = "" if age_s is None else f", the oldest for {advice.span(age_s)}"
        lines.append(("outbox", f"{outbox['pending']} waiting for HQ{oldest}; {outbox['refused']} refused"))
    lines.append(("clock", _clock(clock)))
    sizes = (advice.size(database[key]) for key in ("bytes", "wal_bytes", "free_bytes"))
    lines.append(("disk", "{} and {} of write-ahead log; {} free".format(*sizes)))
    return [Text.assemble((f"{name:8}", "dim"), value) for name, value in lines]


def _clock(found: dict[str, Any]) -> str:
    skew_s, correction_s = found["skew_seconds"], found.get("correction_seconds", 0)
    said = "not compared with HQ's" if skew_s is None else f"{skew_s:+} s against HQ's"
    if correction_s:
        return f"{said}; {found['verdict']}, prices go by {correction_s:+} s"
    return said if found.get("verdict", "ok") in ("ok", "unconfirmed") else f"{said}; {found['verdict']}"


def _finding(finding: advice.Finding) -> Text:
    text = Text.assemble((f"{finding.verdict:6}", f"bold {_COLOURS[finding.verdict]}"), finding.sentence)
    return text.append(f"\n      -> {finding.todo}", "bold") if finding.todo else text
