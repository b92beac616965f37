"""The `storenode` command: run the daemon, ask the replica.

Exit codes: 0 well; 1 an error; 2 wrong usage. `status` and `verify` judge the replica and have codes of their
own; what keeps them from judging is their code 3.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from storenode.commands import (
    api,
    availability,
    doctor,
    jobs,
    outbox,
    overrides,
    read,
    run,
    status,
    verify,
)
from storenode.commands.conventions import SettingsOf
from storenode.config import load

COMMANDS = (
    run.run,
    status.status,
    read.get,
    read.price,
    read.search,
    read.explain,
    overrides.override,
    outbox.emit,
    outbox.outbox,
    verify.verify,
    verify.rebuild,
    verify.quarantine,
    jobs.jobs,
    jobs.backup,
    jobs.restore,
    availability.availability,
    doctor.doctor,
    api.api,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="storenode")
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="The settings, a TOML file (STORENODE_CONFIG)."
)
@click.option("--db", metavar="FILE", help="The replica (STORENODE_DB).")
@click.option("--store-id", metavar="ID", help="This store's id (STORENODE_STORE_ID).")
@click.option("--broker", metavar="URL", help="mqtt://host:1883 or mqtts://user:password@host:8883 (STORENODE_BROKER).")
@click.option(
    "--scopes", metavar="LIST", help="Scopes to follow, the most specific last: all,zone-west (STORENODE_SCOPES)."
)
@click.option("--root", metavar="TOPIC", help="First level(s) of every topic (STORENODE_ROOT).")
@click.pass_context
def main(context: click.Context, /, config: Path | None, **options: str | None) -> None:
    """Keep a store's replica of the catalog, and ask it.

    An option stands before the command and wins over the environment, which wins over the file.

    \b
    storenode status
    storenode price 4011
    storenode --config /etc/storenode/storenode.toml doctor
    """
    context.obj = SettingsOf(lambda: load(os.environ, config, options))


for command in COMMANDS:
    main.add_command(command)

if __name__ == "__main__":
    main()
