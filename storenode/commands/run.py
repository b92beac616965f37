"""`storenode run`: the daemon."""

from __future__ import annotations

import click

from storenode.commands.conventions import SettingsOf, reported


@click.command()
@click.pass_obj
@reported
def run(settings: SettingsOf) -> None:
    """Follow HQ: the store's daemon, in the foreground.

    It ends on SIGTERM and reads its settings again on SIGHUP. On a store's machine systemd runs it: type `systemctl
    status storenode`.

    \b
    storenode --config /etc/storenode/storenode.toml run
    """
    from storenode import daemon

    daemon.run(settings)
