"""`hq import`: a feed becomes the few events that it really contains."""

from __future__ import annotations

import gc
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from hq.catalog import Imported, ImportOptions
from hq.commands.options import (
    arguments_as_options,
    check_stream,
    configured,
    context_argument,
    json_option,
    open_catalog,
    read_settings,
    scope_option,
)
from hq.commands.output import complain, print_json
from hq.core.samples import KINDS, WIDTH, Kind, document, text_lines
from hq.errors import BadField, GuardTripped
from hq.feeds.plan import ImportPlan
from hq.master.records import Committed
from storelink.host.privileges import NamedFile

_count = click.IntRange(0)


@click.command("import")
@context_argument
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--map", "mapping", multiple=True, metavar="COLUMN=FIELD", help="Read FIELD from COLUMN.")
@scope_option
@click.option("--full", is_flag=True, help="The feed is all of the stream: delete what it lacks.")
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
@click.pass_context
def import_feed(
    ctx: click.Context,
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
    began_s = time.monotonic()
    gc.disable()  # a short process that makes many rows and no cycles: a quarter faster
    named = NamedFile(file)
    settings = read_settings(named)
    check_stream(context, scope, settings)
    options = ImportOptions(
        scope=scope,
        full=full,
        where=_parse_where(where, settings.registry[context].key_names),
        mapping=_parse_mapping(mapping),
        force=force,
        allow_empty=allow_empty,
        max_deletes=max_deletes,
        max_changes=max_changes,
        progress=_progress,
    )
    with (
        arguments_as_options({"where": "--where", "mapping": "--map"}),
        open_catalog(settings) as catalog,
        named.readable(settings.db.parent) as readable,
    ):
        try:
            found = (catalog.plan_import if dry_run else catalog.import_feed)(context, readable, **options)
        except GuardTripped as error:
            found = error.plan
    _progress("")
    plan, done = (found.plan, found.committed) if isinstance(found, Imported) else (found, None)
    result = _document(plan, done, dry_run=dry_run) | {"seconds": round(time.monotonic() - began_s, 3)}
    if as_json:
        print_json(result)
    elif dry_run:
        click.echo("\n".join(_dry_run_lines(plan, result)))
    elif done is not None:
        click.echo(_sentence(result))
    if plan.refused is not None and not dry_run:
        kinds = KINDS if plan.refused.guard == "max_changes" else ("deleted",)
        listed = [] if as_json else _sample_lines(plan, kinds)
        complain("\n".join([plan.refused.problem, *listed]), result["refused"]["hint"])
        ctx.exit(1)


def _parse_where(pairs: Iterable[str], key_names: Sequence[str]) -> dict[str, list[str]]:
    """Read `column=value` pairs; a column that is named twice may have either value."""
    where: dict[str, list[str]] = {}
    for pair in pairs:
        column, equals, value = pair.partition("=")
        if not equals:
            raise BadField("--where", f"{pair[:80]!r} is not COLUMN=VALUE", hint=f"key columns: {', '.join(key_names)}")
        where.setdefault(column, []).append(value)
    return where


def _parse_mapping(pairs: Iterable[str]) -> dict[str, str]:
    """Read `column=field` pairs."""
    mapping: dict[str, str] = {}
    for pair in pairs:
        column, equals, field = pair.rpartition("=")
        if not equals or not column:
            raise BadField("--map", f"{pair!r} is not column=field")
        if column in mapping:
            raise BadField("--map", f"{pair!r} maps a column twice")
        mapping[column] = field
    return mapping


def _document(plan: ImportPlan, done: Committed | None, *, dry_run: bool) -> dict[str, Any]:
    """What `--json` prints; with samples where nothing was imported."""
    impact, stream = plan.impact, plan.request.stream
    result = {
        "stream": str(stream),
        "dry_run": dry_run,
        "rows": impact.rows,
        "events": impact.events,
        "new": impact.new,
        "changed": impact.changed,
        "deleted": impact.deleted,
        "unchanged": impact.unchanged,
        "expired": impact.expired,
        "first_seq": done.first_seq if done and done.events else None,
        "head_seq": done.head_seq if done else None,
    }
    if done is None:
        refused = plan.refused
        if refused is not None and not dry_run:
            refused = refused._replace(hint=f"nothing was imported; see what with --dry-run; {refused.hint}")
        result["held"] = impact.held
        result["refused"] = refused._asdict() if refused else None
        result["samples"] = document(stream.context, plan.samples())
    return result


def _dry_run_lines(plan: ImportPlan, result: dict[str, Any]) -> list[str]:
    """What a dry run says, within the width of a terminal."""
    paragraphs = [_sentence(result)]
    if plan.refused is not None:
        paragraphs += [f"would be refused: {plan.refused.problem}", f"hint: {plan.refused.hint}"]
    wrapped = [line for each in paragraphs for line in textwrap.wrap(each, WIDTH, subsequent_indent="  ")]
    return wrapped + _sample_lines(plan, KINDS)


def _sample_lines(plan: ImportPlan, kinds: Sequence[Kind]) -> list[str]:
    impact, few = plan.impact, plan.samples()
    counts: dict[Kind, int] = {"new": impact.new, "changed": impact.changed, "deleted": impact.deleted}
    context, now_s = plan.request.stream.context, plan.at_ms // 1000
    return list(text_lines(context, {kind: few[kind] for kind in kinds}, counts, now_s))


def _sentence(result: dict[str, Any]) -> str:
    counts = ", ".join(f"{result[name]} {name}" for name in ("new", "changed", "deleted", "unchanged"))
    if result["expired"]:
        counts += f", {result['expired']} prices over already"
    verb = "would make" if result["dry_run"] else "made"
    place = "" if result["head_seq"] is None else f", at {result['head_seq']}"
    return (
        f"{result['stream']}: {result['rows']} rows {verb} {result['events']} events"
        f" ({counts}){place}; {result['seconds']:.1f} s"
    )


def _progress(text: str) -> None:
    """One line on a terminal, overwritten; nothing in a pipe."""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{text}{'...' if text else ''}", nl=False, err=True)
