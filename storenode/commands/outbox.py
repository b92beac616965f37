"""`storenode emit` and `storenode outbox`: tell HQ something, and see what HQ does not have yet."""

from __future__ import annotations

import json
import sys

import click

from storelink.contract.limits import ENTRY_BYTES_MAX
from storenode.commands.conventions import SettingsOf, json_option, print_json, reported
from storenode.core import advice

LISTED = 50
DATA_CHARS = 24
"""What is shown of an entry's data, so that a line has at most 80 columns."""


@click.command()
@click.argument("kind", metavar="TYPE")
@click.argument("data", metavar="JSON")
@json_option
@click.pass_obj
@reported
def emit(settings: SettingsOf, kind: str, data: str, as_json: bool) -> None:
    """Tell HQ something, such as a sale.

    It is on disk when this command returns. The daemon sends it as soon as the line to HQ is up. JSON is one JSON
    value; - reads it from standard input.

    \b
    storenode emit sale.total '{"till": 3, "amount_minor": 1299}'
    storenode emit stock.count - < count.json
    """
    from storenode.outbox_client import Outbox

    text = sys.stdin.read(4 * ENTRY_BYTES_MAX) if data == "-" else data
    found = settings()
    with Outbox(found.outbox_path, max_bytes=found.outbox_max_bytes) as outbox:
        accepted = outbox.append_json(kind, text)
    if as_json:
        print_json(accepted)
    else:
        click.echo(f"accepted as {accepted['seq']}")


@click.command()
@click.option("--limit", type=click.IntRange(1, 100_000), default=LISTED, show_default=True, help="At most so many.")
@click.option("--forget-refused", is_flag=True, help="Drop the refused entries; read them first.")
@json_option
@click.pass_obj
@reported
def outbox(settings: SettingsOf, limit: int, forget_refused: bool, as_json: bool) -> None:
    """List what HQ does not have yet, and what it refused.

    Entries that wait come first, the oldest before all. Works also when the daemon does not run.

    \b
    storenode outbox
    storenode outbox --forget-refused
    """
    from storenode.outbox_client import Outbox, outbox_entries

    path = settings().outbox_path
    if forget_refused:
        with Outbox(path) as found:
            dropped = found.forget_refused()
        if as_json:
            print_json({"forgotten": dropped})
        else:
            click.echo(f"{advice.count(dropped, 'entry', 'entries')} forgotten")
        return
    document = outbox_entries(path, limit)
    if as_json:
        print_json(document)
        return
    said = advice.count(document["pending"], "entry waits", "entries wait")
    click.echo(f"outbox {document['epoch']}: {said} for HQ; HQ has all up to {document['acked_seq']}")
    for entry in document["entries"]:
        shown = json.dumps(entry["data"], ensure_ascii=False)[:DATA_CHARS]
        click.echo(f"{entry['seq']:>9} {entry['time']} {entry['type']:<24} {shown}")
    for refused in document["refused"]:
        click.echo(f"{refused['seq']:>9} {refused['time']} {refused['type']:<24} REFUSED: {refused['reason']}")
