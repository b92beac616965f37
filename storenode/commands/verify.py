"""`storenode verify`, `rebuild` and `quarantine`: prove the replica, fetch it anew, see what is not served."""

from __future__ import annotations

import click

from storelink.contract.streams import Stream
from storenode.commands.conventions import Judging, SettingsOf, json_option, print_json, reported
from storenode.commands.read import catalog_of
from storenode.core import states
from storenode.errors import NotFound


@click.command(cls=Judging)
@json_option
@click.pass_obj
@reported
def verify(settings: SettingsOf, as_json: bool) -> None:
    """Prove that the replica is what HQ announced.

    Checks the file, then hashes every row. Takes some seconds for a million rows; tills go on reading.

    Exit code: 0 all is equal; 2 a stream differs, or the file is damaged; 3 could not tell, as before the first
    complete catalog.

    \b
    storenode verify
    """
    found = catalog_of(settings()).verify()
    is_wrong = found["file"] != "ok" or not all(stream["ok"] for stream in found["streams"].values())
    if as_json:
        print_json(found)
    else:
        if found["file"] != "ok":
            click.echo(f"DAMAGED  {found['file']}")
        width = max(map(len, found["streams"]), default=0)
        for name, stream in found["streams"].items():
            verdict = ("equal" if stream["ok"] else "DIFFERS") if stream["epoch"] else "HQ announced nothing yet"
            click.echo(f"{name:<{width}} {stream['rows']:>9} rows  digest {stream['digest'][:12]}  {verdict}")
    if is_wrong:
        click.echo("hint: storenode rebuild fetches it anew; the daemon does so by itself at night", err=True)
    raise SystemExit(states.UNUSABLE if is_wrong else states.LIVE if found["ok"] else states.UNKNOWN)


@click.command()
@click.argument("streams", metavar="[STREAM]...", nargs=-1)
@json_option
@click.pass_obj
@reported
def rebuild(settings: SettingsOf, streams: tuple[str, ...], as_json: bool) -> None:
    """Fetch streams anew from the broker.

    All streams if none is named. Tills go on reading the old rows until the new ones are complete. If the daemon does
    not run, it fetches them when it starts.

    \b
    storenode rebuild
    storenode rebuild price/all
    """
    from storenode.jobs import rebuild_request
    from storenode.replica import queries
    from storenode.replica.status import daemon_alive

    path, contexts = settings().db, settings().registry
    there = queries.streams(path, contexts)
    wanted = [Stream.parse(name, contexts) for name in streams] or there
    unknown = [str(stream) for stream in wanted if stream not in there]
    if unknown:
        followed = ", ".join(map(str, there))
        raise NotFound(f"{', '.join(unknown)}: not followed by this replica", hint=f"it follows {followed}")
    rebuild_request.ask(path, wanted)
    is_running = daemon_alive(path)
    if as_json:
        print_json({"streams": [str(stream) for stream in wanted], "running": is_running})
        return
    for stream in wanted:
        click.echo(f"{stream}: fetched anew " + ("now" if is_running else "when the daemon starts"))
    click.echo("next: storenode status --watch" if is_running else "next: systemctl start storenode")


@click.command()
@json_option
@click.pass_obj
@reported
def quarantine(settings: SettingsOf, as_json: bool) -> None:
    """List what HQ published that breaks a rule and is not served.

    The version before it is served meanwhile, if there is one. Correct the entity at HQ: the next version, or a
    deletion, releases it.

    \b
    storenode quarantine
    """
    found = catalog_of(settings()).quarantined()
    if as_json:
        print_json({"quarantined": found})
        return
    for each in found:
        click.echo(f"{each['stream']}  {'/'.join(each['key'])}  seq {each['seq']}, since {each['at']}")
        click.echo(f"     {each['reason']}")
    if not found:
        click.echo("nothing is in quarantine")
