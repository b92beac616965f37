"""`hq backup` and `hq restore`: a copy of the master, and the way back to it."""

from __future__ import annotations

from pathlib import Path

import click

from hq.commands.shared import configured, json_option, now_ms, print_json
from hq.commands.shared import settings as read_settings
from hq.master import backup as copies
from hq.master.store import Master
from storelink.host.privileges import Delivery, NamedFile


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@configured
@json_option
def backup(file: Path, as_json: bool) -> None:
    """Copy the master to FILE while it is in use, and prove the copy.

    What stores sent (hq.inbox.db) is not in it.
    """
    delivery = Delivery(file.parent, lambda name: name == file.name)
    settings = read_settings(delivery)
    with delivery.place(settings.db.parent) as directory:
        size_bytes = copies.back_up(settings.db, directory / file.name, settings.registry)
        delivery.send(directory / file.name)
    if as_json:
        print_json({"file": str(file), "bytes": size_bytes})
    else:
        click.echo(f"{file}: {size_bytes:,} bytes, proven")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@configured
@json_option
def restore(file: Path, as_json: bool) -> None:
    """Put a copy in the master's place; `hq run` must be stopped. The present master is put aside.

    FILE is proven before anything is touched: it must be made as this version makes a master, and hold what one holds.
    Every stream begins a new epoch, so each store rebuilds, by itself and while it sells on.

    \b
    hq restore hq-2026-11-25.db
    """
    named = NamedFile(file)
    settings = read_settings(named)
    with named.readable(settings.db.parent) as copy:
        aside = copies.restore(settings.db, copy, now_ms(), settings.registry)
    with Master.open(settings.db, settings.registry) as master:
        streams = {str(row.stream): {"epoch": row.epoch, "head_seq": row.head_seq} for row in master.streams()}
    if as_json:
        print_json({"streams": streams, "aside": None if aside is None else str(aside)})
        return
    for name, facts in streams.items():
        click.echo(f"{name:<20} is at {facts['head_seq']} again, epoch {facts['epoch']}")
    if aside is not None:
        click.echo(f"the master from before is {aside}")
