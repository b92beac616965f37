"""`hq`: the command of the catalog desk and of the machine at headquarters.

Exit codes: 0 done; 1 refused or failed, with `error:` and `hint:` on stderr; 2 wrong usage, or `verify` found
a difference, or a store that refuses what HQ sends; 3 `verify --strict` found a store that is behind, or never was
complete.
"""

from __future__ import annotations

import click

from hq.commands import backups, doctor, feeds, lookup, overrides, publish, status, stores
from hq.commands.options import configured, read_settings
from hq.commands.output import HqGroup


@click.group(cls=HqGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="storenode")
@configured
def main() -> None:
    """The master catalog: change it, publish it, see its status.

    Settings come from a TOML file (--config, HQ_CONFIG), the environment (HQ_DB, HQ_BROKER, HQ_ROOT) and options.
    """


@main.command()
@click.option("--take-over", is_flag=True, help="Publish over heads of another master, if the broker keeps any now.")
@configured
def run(take_over: bool) -> None:
    """Publish what is committed, until SIGTERM: the daemon.

    While the broker keeps heads of another master, under the same root, nothing is published, and stores keep what
    they have; `hq status` says whose they are. It goes on by itself when they are gone.

    \b
    hq run
    systemctl stop hq; hq run --take-over   # once: stores get this master's catalog in place of what they have
    """
    from hq import daemon

    daemon.run(read_settings(), take_over=take_over)


for command in (
    publish.init,
    publish.publish,
    feeds.import_feed,
    lookup.get,
    lookup.price,
    lookup.search,
    lookup.export,
    status.status,
    status.log,
    status.verify,
    stores.inbox,
    stores.stores,
    overrides.overrides,
    backups.backup,
    backups.restore,
    doctor.doctor,
):
    main.add_command(command)

if __name__ == "__main__":
    main()
