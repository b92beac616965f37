"""`storenode status`: how fresh this store is, and what is wrong."""

from __future__ import annotations

import click

from storenode.commands.conventions import CannotJudge, Judging, SettingsOf, json_option, print_json, reported
from storenode.commands.read import catalog_of
from storenode.core import states


@click.command(cls=Judging)
@json_option
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@click.pass_obj
@reported
def status(settings: SettingsOf, as_json: bool, watch: bool) -> None:
    """Show how fresh this store is, what is wrong, and what to do.

    Works also when the daemon does not run, or hangs.

    Exit code: 0 live and fresh; 1 usable but stale, offline, rebuilding or catching up; 2 not usable; 3 could not
    tell. With --watch: 0 on Ctrl-C.

    \b
    storenode status
    storenode status --watch
    """
    if as_json and watch:
        raise CannotJudge("--json and --watch do not go together")
    catalog = catalog_of(settings())
    if watch:
        from storenode.commands import status_screen

        status_screen.watch(catalog)
        return
    found = catalog.status()
    if as_json:
        print_json(found)
    else:
        from storenode.commands import status_screen

        status_screen.show(catalog, found)
    raise SystemExit(states.exit_code(found["state"]))
