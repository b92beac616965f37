"""`hq backup` and `hq restore`: a copy of the master, and how to put it back."""

from __future__ import annotations

from pathlib import Path

import click

from hq.catalog import Catalog
from hq.commands.options import configured, json_option, open_catalog, read_settings
from hq.commands.output import print_json
from hq.master import backup as copies
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
        # As `Catalog.backup`, without opening the master for writing: that may bring it to a newer format.
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
    """Put a copy in the master's place; `hq run` must be stopped. The present master is moved away, not removed.

    FILE is proven before anything is touched: it must be made as this version makes a master, and hold what one holds.
    Every stream begins a new epoch, so each store rebuilds, by itself and while it goes on selling.

    \b
    hq restore hq-2026-11-25.db
    """
    named = NamedFile(file)
    settings = read_settings(named)
    with named.readable(settings.db.parent) as copy:
        moved_to = Catalog.restore(settings.db, copy, settings.registry)
    with open_catalog(settings) as catalog:
        streams = {str(row.stream): {"epoch": row.epoch, "head_seq": row.head_seq} for row in catalog.streams()}
    if as_json:
        print_json({"streams": streams, "aside": None if moved_to is None else str(moved_to)})
        return
    for name, stream in streams.items():
        click.echo(f"{name:<20} is at {stream['head_seq']} again, epoch {stream['epoch']}")
    if moved_to is not None:
        click.echo(f"the master from before is {moved_to}")
