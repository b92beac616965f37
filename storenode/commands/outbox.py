"""`storenode emit` and `storenode outbox`: tell HQ something, and see what it has not yet."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from storelink.contract.limits import ENTRY_BYTES_MAX
from storelink.contract.times import rfc3339
from storenode.commands.shared import SettingsOf, json_option, reported
from storenode.errors import NotFound
from storenode.outbox.file import check_outbox, standing_of, translated
from storenode.outbox.status import read_outbox
from storenode.outbox.store import Outbox

LISTED = 50


@click.command()
@click.argument("kind", metavar="TYPE")
@click.argument("data", metavar="JSON")
@json_option
@click.pass_obj
@reported
def emit(settings: SettingsOf, kind: str, data: str, as_json: bool) -> None:
    """Tell HQ something: it is on disk when this returns, and sent when the line is there.

    \b
    storenode emit sale.total '{"till": 3, "amount_minor": 1299}'
    storenode emit stock.count - < count.json
    """
    text = sys.stdin.read(4 * ENTRY_BYTES_MAX) if data == "-" else data
    found = settings()
    at_ms = time.time_ns() // 1_000_000
    with Outbox(found.outbox_path, found.outbox_max_bytes) as outbox:
        seq = outbox.append_json(kind, text, at_ms)
        epoch = outbox.standing().epoch
    if as_json:
        click.echo(json.dumps({"epoch": epoch, "seq": seq, "type": kind, "time": rfc3339(at_ms)}))
    else:
        click.echo(f"accepted as {seq}")


@click.command()
@click.option("--limit", type=click.IntRange(1, 100_000), default=LISTED, show_default=True, help="Entries at most.")
@click.option("--forget-refused", is_flag=True, help="Drop the entries that were set aside.")
@json_option
@click.pass_obj
@reported
def outbox(settings: SettingsOf, limit: int, forget_refused: bool, as_json: bool) -> None:
    """List what waits for HQ, the oldest first, and what was set aside; works with the daemon dead."""
    path = settings().outbox_path
    if forget_refused:
        with Outbox(path) as found:
            dropped = found.forget_refused()
        click.echo(json.dumps({"forgotten": dropped}) if as_json else f"{dropped} entries forgotten")
        return
    if not path.exists():
        raise NotFound(f"there is no outbox at {path}", hint="storenode emit makes it; check outbox / STORENODE_OUTBOX")
    document = _listed(path, limit)
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    click.echo(f"outbox {document['epoch']}: {document['pending']} wait, HQ has all up to {document['acked_seq']}")
    for entry in document["entries"]:
        click.echo(f"{entry['seq']:>9} {entry['time']} {entry['type']:<24} {json.dumps(entry['data'])[:60]}")
    for entry in document["refused"]:
        click.echo(f"{entry['seq']:>9} {entry['time']} {entry['type']:<24} REFUSED: {entry['reason']}")


def _listed(path: Path, limit: int) -> dict[str, Any]:
    with translated(path), closing(read_outbox(path)) as db:
        check_outbox(db, path)
        db.execute("BEGIN")
        found = standing_of(db)
        waiting = db.execute(
            "SELECT seq, type, at_ms, data FROM entries WHERE withheld IS NULL ORDER BY seq LIMIT ?", (limit,)
        ).fetchall()
        refused = db.execute(
            "SELECT epoch, seq, type, at_ms, reason FROM refused UNION ALL SELECT (SELECT epoch FROM outbox), seq,"
            " type, at_ms, withheld FROM entries WHERE withheld IS NOT NULL ORDER BY 1, 2 LIMIT ?",
            (limit,),
        ).fetchall()
    return {
        "epoch": found.epoch,
        "pending": found.pending,
        "acked_seq": found.acked_seq,
        "entries": [
            {"seq": seq, "type": kind, "time": rfc3339(at_ms), "data": json.loads(text)}
            for seq, kind, at_ms, text in waiting
        ],
        "refused": [
            {"epoch": epoch, "seq": seq, "type": kind, "time": rfc3339(at_ms), "reason": reason}
            for epoch, seq, kind, at_ms, reason in refused
        ],
    }
