"""`storenode verify` and `storenode rebuild`: prove the replica, and have suspect rows fetched anew."""

from __future__ import annotations

import json
from pathlib import Path

import click

from storelink.contract.streams import Stream
from storenode.commands.shared import Judging, SettingsOf, json_option, reported
from storenode.core import states
from storenode.errors import NotFound, ReplicaDamaged
from storenode.jobs import rebuild_request
from storenode.replica import queries
from storenode.replica.status import daemon_alive
from storenode.replica.verify import check_file, scan


@click.command(cls=Judging)
@json_option
@click.pass_obj
@reported
def verify(settings: SettingsOf, as_json: bool) -> None:
    """Prove the replica: check its file, hash every row and compare with what HQ announced.

    Exit code: 0 all equal; 2 a stream differs, or the file is damaged; 3 could not tell, as before the first
    bootstrap.
    """
    found = settings()
    path, problem = found.db, _problem(found.db)
    scans = [scan(path, stream) for stream in queries.streams(path, found.registry)] if problem is None else []
    proven = any(s.epoch for s in scans) and all(s.epoch for s in scans if str(s.stream) in states.NEEDED)
    code = states.LIVE if proven else states.UNKNOWN
    if problem is not None or not all(s.ok for s in scans):
        code = states.UNUSABLE
    if as_json:
        streams = {
            str(s.stream): {
                "position": s.position,
                "rows": s.rows,
                "digest": s.digest,
                "announced": s.announced,
                "ok": s.ok,
            }
            for s in scans
        }
        click.echo(json.dumps({"ok": code == 0, "file": problem or "ok", "streams": streams}))
    else:
        if problem is not None:
            click.echo(f"DAMAGED  {problem}")
        for s in scans:
            verdict = ("equal" if s.ok else "DIFFERS") if s.epoch else "never bootstrapped"
            click.echo(f"{s.stream!s:24}{s.rows:>9} rows  {s.digest}  {verdict}")
    if code == states.UNUSABLE:
        click.echo("hint: storenode rebuild fetches it anew; so does the daemon by itself, at night", err=True)
    raise SystemExit(code)


def _problem(path: Path) -> str | None:
    try:
        check_file(path)
    except ReplicaDamaged as error:
        return str(error)
    return None


@click.command()
@click.argument("streams", metavar="[STREAM]...", nargs=-1)
@json_option
@click.pass_obj
@reported
def rebuild(settings: SettingsOf, streams: tuple[str, ...], as_json: bool) -> None:
    """Have streams fetched anew from the broker, all of them if none is named: `rebuild price/all`.

    The rows there are serve until the new ones are complete. A daemon that does not run begins with it when it starts.
    """
    path, contexts = settings().db, settings().registry
    there = queries.streams(path, contexts)
    wanted = [Stream.parse(name, contexts) for name in streams] or there
    unknown = [str(stream) for stream in wanted if stream not in there]
    if unknown:
        followed = ", ".join(map(str, there))
        raise NotFound(f"{', '.join(unknown)}: not followed by this replica", hint=f"it follows {followed}")
    rebuild_request.ask(path, wanted)
    running = daemon_alive(path)
    if as_json:
        click.echo(json.dumps({"streams": [str(stream) for stream in wanted], "running": running}))
        return
    when = "now; storenode status --watch shows it" if running else "when the daemon starts: systemctl start storenode"
    click.echo(f"{', '.join(map(str, wanted))}: fetched anew {when}")


@click.command()
@json_option
@click.pass_obj
@reported
def quarantine(settings: SettingsOf, as_json: bool) -> None:
    """List the entities whose newest version breaks a rule and is not served; the version before it is.

    A later version, or a deletion, releases them: correct them at HQ.
    """
    found = queries.quarantined(settings().db)
    if as_json:
        click.echo(json.dumps({"quarantined": found}, ensure_ascii=False))
        return
    for each in found:
        click.echo(f"{each['stream']:<20} {'/'.join(each['key']):<24} {each['seq']:>9} {each['at']}  {each['reason']}")
    if not found:
        click.echo("nothing is held")
