"""`storenode api`: the replica over HTTP, in a process of its own."""

from __future__ import annotations

import sys
from dataclasses import replace

import click

from storenode.commands.shared import SettingsOf, reported
from storenode.core import api_address
from storenode.errors import BadArgument


@click.command()
@click.option("--listen", help="host:port or unix:/path (STORENODE_API); 127.0.0.1:8417 if nothing is said.")
@click.option("--supervised", is_flag=True, hidden=True, help="End when standard input does; the daemon's way.")
@click.pass_obj
@reported
def api(settings: SettingsOf, listen: str | None, supervised: bool) -> None:
    """Answer tills and kiosks over HTTP, on this machine, until SIGTERM.

    With `api` in the settings, `storenode run` does this by itself, in a process of its own.

    \b
    curl http://127.0.0.1:8417/prices/4011
    """
    from storenode.api import server

    found = settings()
    if listen is not None:
        try:
            found = replace(found, api=api_address.parsed(listen))
        except ValueError as error:
            raise BadArgument(str(error), hint="as in 127.0.0.1:8417") from error
    server.run(found, supervised=supervised)
    sys.exit(0)
