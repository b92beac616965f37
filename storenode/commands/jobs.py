"""`storenode jobs`, `backup` and `restore`: what the store does by the clock, and its backups."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from storelink.contract.times import rfc3339
from storelink.host.privileges import Delivery, NamedFile
from storenode.commands.conventions import SettingsOf, json_option, print_json, reported
from storenode.config import Settings
from storenode.core import advice, job_times
from storenode.errors import BadArgument, StorenodeError
from storenode.jobs import history

if TYPE_CHECKING:
    from storenode.jobs.backup import Backup

MEANINGS = {
    job_times.ACTIVATE: "looks which prices changed",
    job_times.HOOK: "delivers them to on_price_change",
    job_times.VERIFY: "proves the replica",
    job_times.BACKUP: "backs the replica up",
    job_times.PRUNE: "removes old files",
    job_times.CHECKPOINT: "moves the log into the file",
}


@click.command()
@json_option
@click.pass_obj
@reported
def jobs(settings: SettingsOf, as_json: bool) -> None:
    """Show what this store does by the clock.

    Of each job: when it runs next, and how its last run ended. Works also when the daemon does not run.

    Exit code: 0 also when a job's last run failed; `--json` says so in `ok`.

    \b
    storenode jobs
    """
    found = settings()
    document = _document(found, time.time_ns() // 1_000_000)
    if as_json:
        print_json(document)
        return
    if not document["running"]:
        click.echo("the daemon does not run: a job that becomes due runs once when it starts")
    for name, job in document["jobs"].items():
        click.echo(f"{name:<11}{MEANINGS.get(name, ''):<38}{_next(job)}".rstrip())
        click.echo(f"{'':<11}{_last(job)}")


@click.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path, file_okay=False))
@json_option
@click.pass_obj
@reported
def backup(settings: SettingsOf, directory: Path | None, as_json: bool) -> None:
    """Back up the replica and prove the backup.

    The daemon may run. DIRECTORY is the setting `backup_dir` if left out. The newest `backup_keep` backups of this
    store are kept there, older ones are removed.

    \b
    storenode backup
    storenode backup /media/usb
    """
    found = settings.read()
    place = directory or found.backup_dir
    if place is None:
        raise BadArgument("no directory is named", hint="storenode backup DIRECTORY, or set backup_dir")
    began_ms = time.time_ns() // 1_000_000
    made = _made(settings, place)
    if place == found.backup_dir:
        _note(found, began_ms, f"{made.path.name}, {made.size_bytes} bytes")
    if as_json:
        document = {
            "file": str(made.path),
            "bytes": made.size_bytes,
            "streams": made.positions,
            "dropped": list(made.dropped),
        }
        print_json(document)
        return
    click.echo(f"{made.path}  {advice.size(made.size_bytes)}  {_positions(made.positions)}")


def _made(settings: SettingsOf, place: Path) -> Backup:
    from storenode.jobs import backup as backups

    found = settings.read()
    delivery = Delivery(
        place,
        lambda name: name.startswith(f"replica-{found.store_id}-"),
        lambda: backups.rotate(place, found.store_id, found.backup_keep),
    )
    settings(delivery)
    with delivery.place(found.db.parent) as directory:
        made = backups.make(found.db, found.registry, directory, found.store_id, found.backup_keep, datetime.now(UTC))
        dropped = delivery.send(made.path)
    return made if dropped is None else replace(made, path=place / made.path.name, dropped=tuple(dropped))


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--overrides",
    "unknown",
    type=click.Choice(["set", "drop"]),
    help="Overrides in FILE that this store's outbox does not know: set them again, or drop them.",
)
@json_option
@click.pass_obj
@reported
def restore(settings: SettingsOf, file: Path, unknown: Literal["set", "drop"] | None, as_json: bool) -> None:
    """Put a backup in the replica's place.

    Stop the daemon first. FILE is proven before anything is touched. The replica that is there is moved away, not
    deleted. What waits for HQ is kept. When the daemon starts, it catches up from the backup.

    If FILE has overrides that this store's outbox does not know, as on a new machine, say what becomes of them:
    --overrides set (HQ is told) or --overrides drop.

    \b
    systemctl stop storenode
    storenode restore /var/backups/storenode/replica-s1-20261125T031500Z.db
    systemctl start storenode
    """
    from storenode.jobs.restore import restore as restored

    named = NamedFile(file)
    found = settings(named)
    with named.readable(found.db.parent) as copy:
        done = restored(
            copy, found.db, found.registry, found.outbox_path, found.store_id, datetime.now(UTC), unknown=unknown
        )
    if as_json:
        aside = None if done.former is None else str(done.former)
        click.echo(json.dumps({"streams": done.positions, "aside": aside, "overrides": done.overrides}))
        return
    click.echo(f"restored: {_positions(done.positions)}")
    if done.former is not None:
        click.echo(f"the former replica is {done.former}")
    if done.overrides:
        click.echo(f"{advice.count(done.overrides, 'price', 'prices')} of this store's own set again")
    click.echo("now: systemctl start storenode")


def _note(settings: Settings, began_ms: int, detail: str) -> None:
    """A backup by hand counts as the night's. If that cannot be recorded, the backup is good all the same."""
    try:
        took_ms = max(time.time_ns() // 1_000_000 - began_ms, 0)
        history.JobHistory(settings.outbox_path).note(job_times.BACKUP, began_ms, took_ms, detail, ok=True)
    except StorenodeError as error:
        click.echo(f"warning: the backup is made, but storenode jobs will not show it: {error}", err=True)


def _document(settings: Settings, wall_ms: int) -> dict[str, Any]:
    from storenode.replica.status import daemon_alive

    runs, rhythms = history.read(settings.outbox_path), settings.rhythms
    names = [name for name in MEANINGS if name in rhythms or (name == job_times.HOOK and settings.on_price_change)]
    return {
        "running": daemon_alive(settings.db),
        "jobs": {name: _job(runs.get(name), rhythms.get(name), wall_ms) for name in names},
    }


def _job(run: history.Run | None, rhythm: job_times.Rhythm | None, wall_ms: int) -> dict[str, Any]:
    next_ms = None if rhythm is None else rhythm.next_ms(wall_ms)
    if run is not None and run.next_at_ms is not None and next_ms is not None and run.next_at_ms > wall_ms:
        next_ms = min(next_ms, run.next_at_ms)
    last_ms = None if run is None else run.last_at_ms
    return {
        "next_at": None if next_ms is None else rfc3339(next_ms),
        "owed": run is not None and rhythm is not None and rhythm.is_owed(run.reference_ms, wall_ms),
        "last_at": None if last_ms is None else rfc3339(last_ms),
        "took_ms": None if run is None else run.took_ms,
        "ok": None if run is None else run.ok,
        "detail": None if run is None else run.detail,
    }


def _last(job: dict[str, Any]) -> str:
    if job["last_at"] is None:
        return "last: never yet"
    return f"last: {job['last_at']}  {'' if job['ok'] else 'FAILED: '}{job['detail']} ({job['took_ms']} ms)"


def _next(job: dict[str, Any]) -> str:
    if job["owed"]:
        return "due now"
    return f"next {job['next_at']}" if job["next_at"] else ""


def _positions(positions: dict[str, int]) -> str:
    return ", ".join(f"{name} at {position}" for name, position in positions.items())
