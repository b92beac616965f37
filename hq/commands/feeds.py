"""`hq import`: a feed becomes the few events that it really contains."""

from __future__ import annotations

import gc
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from hq.commands.shared import configured, context_argument, json_option, now_ms, print_json, scope_option, stream_of
from hq.commands.shared import settings as read_settings
from hq.core.feed_diff import Diff, diff
from hq.core.guard import Impact, Refused, dropped_choice, judge, only_choice, sentence
from hq.core.part import Part, parse_part
from hq.core.samples import KINDS, WIDTH, Kind, Samples, facts, lines, samples
from hq.errors import GuardTripped
from hq.feeds.files import Feed, parse_mapping, read_feed
from hq.master.store import Committed, Master
from storelink.contract.contexts import Key, Row
from storelink.contract.streams import Stream
from storelink.host.privileges import NamedFile

_count = click.IntRange(0)


@click.command("import")
@context_argument
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--map", "mapping", multiple=True, metavar="COLUMN=FIELD", help="Read FIELD from COLUMN.")
@scope_option
@click.option("--full", is_flag=True, help="The feed is the whole stream: delete what it lacks.")
@click.option(
    "--where",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="The feed speaks for these rows only, by a key column: others are refused in it, and never deleted.",
)
@click.option("--force", is_flag=True, help="It is meant: delete however much it is.")
@click.option("--allow-empty", is_flag=True, help="Let an empty feed with --full delete everything.")
@click.option("--dry-run", is_flag=True, help="Say what would change, with samples; change nothing.")
@click.option("--max-deletes", type=_count, help="Refuse a feed that deletes more than this, also with --force.")
@click.option("--max-changes", type=_count, help="Refuse a feed that makes more events than this, also with --force.")
@configured
@json_option
def import_feed(
    *,
    context: str,
    file: Path,
    mapping: tuple[str, ...],
    scope: str,
    full: bool,
    where: tuple[str, ...],
    force: bool,
    allow_empty: bool,
    dry_run: bool,
    max_deletes: int | None,
    max_changes: int | None,
    as_json: bool,
) -> None:
    """Compare FILE (.csv, .ndjson, .parquet) with the master and commit the differences as one change set.

    One bad row, and nothing is imported. Rows that are so already emit nothing. Only --full deletes, and not without
    --force: more than 20 rows that are more than 10 % of those the feed speaks for; more than 10, if it has fewer
    than half as many; all more than 20 of one choice, such as kind=promotion; anything, if the feed is empty.

    \b
    hq import price feed.csv
    hq import price regular.csv --full --where kind=regular --dry-run
    hq import price regular.csv --full --where kind=regular
    hq import product everything.csv --full --force
    """
    began = time.monotonic()
    gc.disable()  # a short process that makes many rows and no cycles: a quarter faster
    named = NamedFile(file)
    settings = read_settings(named)
    stream = stream_of(context, scope, settings)
    columns, part = parse_mapping(mapping, stream.context), parse_part(where, stream.context)
    with Master.open(settings.db, settings.registry) as master:
        _progress(f"reading {file.name}")
        with named.readable(settings.db.parent) as readable:
            rows = read_feed(readable, stream.context, columns)
        asked = _Asked(
            stream,
            file.name,
            part,
            full=full,
            dry_run=dry_run,
            meant=force or (allow_empty and not rows),
            max_deletes=max_deletes,
            max_changes=max_changes,
        )
        outcome = _compare_and_commit(master, asked, rows)
    _progress("")
    document = _facts(asked, outcome) | {"seconds": round(time.monotonic() - began, 3)}
    if as_json:
        print_json(document)
    elif dry_run:
        click.echo("\n".join(_dry_text(asked, outcome, document)))
    elif outcome.refused is None:
        click.echo(_sentence(document))
    if outcome.refused is not None and not dry_run:
        guard, problem, hint = outcome.refused
        shown = [] if as_json else _listed(asked, outcome, KINDS if guard == "max_changes" else ("deleted",))
        raise GuardTripped(guard, problem, hint=hint, lines=shown)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the command line says. `meant`: the default guards are lifted."""

    stream: Stream
    name: str
    part: Part
    full: bool
    dry_run: bool
    meant: bool
    max_deletes: int | None
    max_changes: int | None

    @property
    def rows_of(self) -> str:
        return f"{self.stream} with {self.part}" if self.part else str(self.stream)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the feed did, or would do; no samples are looked for in what was imported."""

    at_s: int
    found: Diff
    held: int
    done: Committed | None = None
    refused: Refused | None = None
    samples: Samples | None = None


def _compare_and_commit(master: Master, asked: _Asked, rows: Feed) -> _Outcome:
    """Compare and commit under one write lock, so that the feed is judged by what it changes."""
    at_ms, stream = now_ms(), asked.stream
    with master.reading() if asked.dry_run else master.writing():
        _progress(f"comparing {len(rows)} rows")
        live = master.live_rows(stream)
        found = diff(stream.context, asked.name, rows, live, at_ms // 1000, full=asked.full, part=asked.part)
        held = len(asked.part.of(live.keys()))
        refused = _refused(asked, found, live, held)
        if refused is not None or asked.dry_run:
            shown = samples(stream.context, found.changes, live)
            return _Outcome(at_ms // 1000, found, held, refused=refused, samples=shown)
        _progress(f"committing {len(found.changes)} events")
        return _Outcome(at_ms // 1000, found, held, master.commit(stream, found.changes, at_ms, live))


def _refused(asked: _Asked, found: Diff, live: Mapping[Key, Row], held: int) -> Refused | None:
    """The guard that stops the feed: one that the command line names, or else one that it did not lift."""
    name, hints = asked.name, [] if asked.dry_run else ["nothing was imported", "see what with --dry-run"]
    if asked.max_deletes is not None and found.deleted > asked.max_deletes:
        problem = f"{name} would delete {found.deleted} entities; --max-deletes is {asked.max_deletes}"
        return Refused("max_deletes", problem, "; ".join([*hints, "a higher --max-deletes if it is meant"]))
    if asked.max_changes is not None and len(found.changes) > asked.max_changes:
        problem = f"{name} would make {len(found.changes)} events; --max-changes is {asked.max_changes}"
        return Refused("max_changes", problem, "; ".join([*hints, "a higher --max-changes if it is meant"]))
    if asked.meant or not found.deleted:
        return None
    context = asked.stream.context
    impact = Impact(held, found.named, found.deleted, dropped_choice(context, live, found.changes))
    guard = judge(impact)
    if guard is None:
        return None
    hints.append("--force if it is meant")
    if not asked.part and len(context.keys) > 1:
        part = only_choice(context, live, found.changes) or "COLUMN=VALUE"
        hints.append(f"--where {part} if the feed speaks for these rows only")
    return Refused(guard, f"{name} {sentence(guard, impact, asked.rows_of)}", "; ".join(hints))


def _facts(asked: _Asked, outcome: _Outcome) -> dict[str, Any]:
    found, done, refused = outcome.found, outcome.done, outcome.refused
    document = {
        "stream": str(asked.stream),
        "dry_run": asked.dry_run,
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
    if outcome.samples is not None:
        document["held"] = outcome.held
        document["refused"] = refused._asdict() if refused else None
        document["samples"] = facts(asked.stream.context, outcome.samples)
    return document


def _dry_text(asked: _Asked, outcome: _Outcome, document: dict[str, Any]) -> list[str]:
    """What a dry run says, within the width of a terminal."""
    paragraphs = [_sentence(document)]
    if outcome.refused is not None:
        paragraphs += [f"would be refused: {outcome.refused.problem}", f"hint: {outcome.refused.hint}"]
    wrapped = [line for each in paragraphs for line in textwrap.wrap(each, WIDTH, subsequent_indent="  ")]
    return wrapped + _listed(asked, outcome, KINDS)


def _listed(asked: _Asked, outcome: _Outcome, kinds: Sequence[Kind]) -> list[str]:
    found = outcome.found
    counts: dict[Kind, int] = {"new": found.new, "changed": found.changed, "deleted": found.deleted}
    shown = {kind: outcome.samples[kind] for kind in kinds} if outcome.samples else {}
    return list(lines(asked.stream.context, shown, counts, outcome.at_s))


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
