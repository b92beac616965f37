"""`storenode run`: the daemon."""

from __future__ import annotations

import click

from storenode.commands.conventions import SettingsOf, reported


@click.command()
@click.pass_obj
@reported
def run(settings: SettingsOf) -> None:
    """Follow HQ: run the store's daemon in the foreground, until SIGTERM.

    On a store's machine systemd runs it: `systemctl status storenode`. SIGHUP: the settings are read again.

    \b
    storenode --config /etc/storenode/storenode.toml run
    """
    from storenode import daemon

    daemon.run(settings)
