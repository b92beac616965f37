"""`hq import`: a feed becomes the few events that it really contains."""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from typing import Any

import click

from hq.commands.shared import configured, context_argument, json_option, now_ms, print_json, scope_option, stream_of
from hq.commands.shared import settings as read_settings
from hq.core.feed_diff import Diff, diff
from hq.errors import GuardTripped
from hq.feeds.files import Feed, parse_mapping, read_feed
from hq.master.store import Committed, Master
from storelink.contract.streams import Stream
from storelink.host.privileges import NamedFile

_count = click.IntRange(0)


@click.command("import")
@context_argument
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--map", "mapping", multiple=True, metavar="COLUMN=FIELD", help="Read FIELD from COLUMN.")
@scope_option
@click.option("--full", is_flag=True, help="The feed is the whole stream: delete what it lacks.")
@click.option("--allow-empty", is_flag=True, help="Let an empty feed with --full delete everything.")
@click.option("--dry-run", is_flag=True, help="Say what would change; change nothing.")
@click.option("--max-deletes", type=_count, help="Refuse a feed that deletes more than this.")
@click.option("--max-changes", type=_count, help="Refuse a feed that makes more events than this.")
@configured
@json_option
def import_feed(
    *,
    context: str,
    file: Path,
    mapping: tuple[str, ...],
    scope: str,
    full: bool,
    allow_empty: bool,
    dry_run: bool,
    max_deletes: int | None,
    max_changes: int | None,
    as_json: bool,
) -> None:
    """Compare FILE (.csv, .ndjson, .parquet) with the master and commit the differences as one change set.

    One bad row, and nothing is imported. Rows that are so already emit nothing.
    """
    began = time.monotonic()
    gc.disable()  # a short process that makes many rows and no cycles: a quarter faster
    named = NamedFile(file)
    settings, stream = read_settings(named), stream_of(context, scope)
    declared = stream.declared
    columns = parse_mapping(mapping, declared)
    with Master(settings.db) as master:
        master.streams()
        _progress(f"reading {file.name}")
        with named.readable(settings.db.parent) as readable:
            rows = read_feed(readable, declared, columns)
        if full and not rows and not allow_empty:
            raise GuardTripped(f"{file.name} has no rows; --full would delete all of {stream}", hint="--allow-empty")
        found, done = _compare_and_commit(
            master, stream, file.name, rows, full=full, dry_run=dry_run, guards=(max_deletes, max_changes)
        )
    _progress("")
    document = _facts(stream, found, done, dry_run=dry_run) | {"seconds": round(time.monotonic() - began, 3)}
    if as_json:
        print_json(document)
    else:
        click.echo(_sentence(document))


def _compare_and_commit(
    master: Master,
    stream: Stream,
    name: str,
    rows: Feed,
    *,
    full: bool,
    dry_run: bool,
    guards: tuple[int | None, int | None],
) -> tuple[Diff, Committed | None]:
    """Compare and commit under one write lock, so that the feed is judged by what it changes."""
    at_ms = now_ms()
    with master.reading() if dry_run else master.writing():
        _progress(f"comparing {len(rows)} rows")
        live = master.live_rows(stream)
        found = diff(stream.declared, name, rows, live, at_ms // 1000, full=full)
        _guard(name, found, *guards)
        _progress(f"committing {len(found.changes)} events")
        return found, None if dry_run else master.commit(stream, found.changes, at_ms, live)


def _guard(name: str, found: Diff, max_deletes: int | None, max_changes: int | None) -> None:
    if max_deletes is not None and found.deleted > max_deletes:
        raise GuardTripped(
            f"{name} would delete {found.deleted} entities; --max-deletes is {max_deletes}",
            hint="see what with --dry-run; nothing was imported",
        )
    if max_changes is not None and len(found.changes) > max_changes:
        raise GuardTripped(
            f"{name} would make {len(found.changes)} events; --max-changes is {max_changes}",
            hint="see what with --dry-run; nothing was imported",
        )


def _facts(stream: Stream, found: Diff, done: Committed | None, *, dry_run: bool) -> dict[str, Any]:
    return {
        "stream": str(stream),
        "dry_run": dry_run,
        "rows": found.rows,
        "events": len(found.changes),
        "new": found.new,
        "changed": found.changed,
        "deleted": found.deleted,
        "unchanged": found.unchanged,
        "expired": found.expired,
        "first_seq": done.first_seq if done and done.events else None,
        "head_seq": done.head_seq if done else None,
    }


def _sentence(facts: dict[str, Any]) -> str:
    counts = ", ".join(f"{facts[name]} {name}" for name in ("new", "changed", "deleted", "unchanged"))
    if facts["expired"]:
        counts += f", {facts['expired']} prices over already"
    verb = "would make" if facts["dry_run"] else "made"
    place = "" if facts["head_seq"] is None else f", at {facts['head_seq']}"
    return (
        f"{facts['stream']}: {facts['rows']} rows {verb} {facts['events']} events"
        f" ({counts}){place}; {facts['seconds']:.1f} s"
    )


def _progress(text: str) -> None:
    """One line on a terminal, overwritten; nothing in a pipe."""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{text}{'...' if text else ''}", nl=False, err=True)
