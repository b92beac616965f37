"""`storenode api`: the replica over HTTP, in a process of its own."""

from __future__ import annotations

import sys
from dataclasses import replace

import click

from storenode.commands.conventions import SettingsOf, reported
from storenode.core import api_address
from storenode.errors import BadArgument


@click.command()
@click.option("--listen", metavar="ADDRESS", help="host:port or unix:/path (STORENODE_API). Default: 127.0.0.1:8417.")
@click.option("--supervised", is_flag=True, hidden=True, help="End when standard input does; the daemon's way.")
@click.pass_obj
@reported
def api(settings: SettingsOf, listen: str | None, supervised: bool) -> None:
    """Answer tills and kiosks over HTTP, until SIGTERM.

    On this machine only. With `api` in the settings, `storenode run` starts it by itself, as a process of its own.

    \b
    storenode api --listen 127.0.0.1:8417
    curl http://127.0.0.1:8417/prices/4011
    """
    from storenode.api import server

    found = settings()
    if listen is not None:
        try:
            found = replace(found, api=api_address.parsed(listen))
        except ValueError as error:
            raise BadArgument(
                str(error), hint="write it as in 127.0.0.1:8417 or unix:/run/storenode/api.sock"
            ) from error
    server.run(found, supervised=supervised)
    sys.exit(0)
