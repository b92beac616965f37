"""`storenode override`: a price that this store sets itself, until a time, whatever HQ publishes."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from storelink.contract.money import minor_units, money_text
from storelink.contract.times import epoch_seconds, rfc3339
from storelink.host.locks import lock_instance, lock_path
from storelink.host.sqlite import open_readonly
from storenode.commands.shared import SettingsOf, json_option, reported
from storenode.config import Settings
from storenode.core.overrides import COLUMNS, Override
from storenode.errors import BadArgument, NotFound, StorenodeError
from storenode.outbox import override_copy
from storenode.outbox import overrides as own
from storenode.outbox.file import check_outbox, standing_of, translated
from storenode.outbox.store import Outbox
from storenode.replica import queries
from storenode.replica.file import reading
from storenode.replica.status import daemon_alive

WAIT_S = 5.0
"""How long a command waits for the daemon to take an override over; it takes some milliseconds."""

POLL_S = 0.02
READ_TIMEOUT_S = 2.0


@click.command()
@click.argument("sku", required=False)
@click.argument("amount", required=False)
@click.option("--until", help="When it ends: RFC 3339, as in 2026-12-24T18:00:00Z or 2026-12-24T18:00+01:00.")
@click.option("--reason", help="Why, for HQ and for whoever asks later.")
@click.option("--currency", help="Of AMOUNT; that of the price in force if left out.")
@click.option("--withdraw", "withdrawn", is_flag=True, help="End the override of SKU now.")
@click.option("--force", is_flag=True, help="Also for a SKU that this replica does not know, or in another currency.")
@json_option
@click.pass_obj
@reported
def override(
    settings: SettingsOf,
    *,
    sku: str | None,
    amount: str | None,
    until: str | None,
    reason: str | None,
    currency: str | None,
    withdrawn: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Set a price of this store's own for SKU, withdraw it, or list those in force.

    \b
    storenode override 4011 1.49 --until 2026-12-24T18:00:00Z --reason "ripe"
    storenode override 4011 --withdraw
    storenode override

    AMOUNT is decimal, as in 1.49. It wins over every price of HQ until it ends, also with the line or the daemon
    down, and HQ is told.
    """
    found = settings()
    now_ms = queries.price_now_ms(found.db)
    if sku is None:
        if withdrawn or until or reason or currency:
            raise click.UsageError("name the SKU")
        _list(found, now_ms, as_json=as_json)
        return
    if withdrawn:
        if amount is not None or until or reason or currency:
            raise click.UsageError("--withdraw takes a SKU and nothing else")
        with Outbox(found.outbox_path, found.outbox_max_bytes) as outbox:
            done = own.withdraw(outbox, sku, now_ms)
    else:
        if amount is None or until is None or reason is None:
            raise click.UsageError("an override needs AMOUNT, --until and --reason")
        ends_at = _seconds(until)
        priced_in = _currency(found, sku, currency, force=force)
        minor = _minor(amount, priced_in)
        with Outbox(found.outbox_path, found.outbox_max_bytes) as outbox:
            done = own.put(outbox, sku, minor, priced_in, ends_at, reason, now_ms)
    _tell(found, done, withdrawn=withdrawn, as_json=as_json)


def _tell(settings: Settings, done: Override, *, withdrawn: bool, as_json: bool) -> None:
    effective = _wait_copied(settings, done)
    if as_json:
        click.echo(json.dumps(_document(done) | {"withdrawn": withdrawn, "effective": effective}, ensure_ascii=False))
    elif withdrawn:
        click.echo(f"the override of {done.sku} ended at {rfc3339(done.ends_at * 1000)}")
    else:
        amount = money_text(done.amount_minor, done.currency)
        click.echo(f"{done.sku} costs {amount} until {rfc3339(done.until * 1000)}")
    if not effective:
        click.echo("warning: accepted, but tills do not see it yet; they will once the daemon runs", err=True)
        click.echo("hint: storenode status", err=True)


def _wait_copied(settings: Settings, done: Override) -> bool:
    """Wait until readers see it: the daemon copies it, or with the daemon dead this command does."""
    deadline_s = time.monotonic() + WAIT_S
    while not _is_copied(settings.db, done):
        if not settings.db.exists() or time.monotonic() > deadline_s:
            return False
        try:
            lock = lock_instance(lock_path(settings.db))
        except OSError:  # this user may not take the daemon's place
            if not daemon_alive(settings.db):
                return False
            lock = None
        if lock is not None:
            with lock:
                return override_copy.copy_alone(settings.db, settings.outbox_path, settings.store_id)
        time.sleep(POLL_S)
    return True


def _is_copied(db: Path, done: Override) -> bool:
    try:
        with reading(db) as replica:
            row = replica.execute(
                f"SELECT {COLUMNS} FROM overrides WHERE sku = ? AND seq = ?", (done.sku, done.seq)
            ).fetchone()
    except StorenodeError:
        return False
    return row is not None and Override(*row) == done


def _currency(settings: Settings, sku: str, wanted: str | None, *, force: bool) -> str:
    """The currency to price a SKU in; refuses one that this replica does not know, or that differs from its price's."""
    try:
        there = str(queries.price(settings.db, sku, None)["currency"])
    except NotFound:
        there = None
        if not force and not _is_known(settings.db, sku):
            raise NotFound(f"this replica knows no SKU {sku[:80]}", hint="check it, or say --force") from None
    except StorenodeError:
        if not force:
            raise
        there = None
    if wanted is None and there is None:
        raise BadArgument(f"{sku[:80]} has no price now to take the currency from", hint="say it: --currency EUR")
    if wanted is not None and there not in (None, wanted) and not force:
        problem = f"{sku[:80]} is priced in {there}, not in {wanted[:40]}"
        raise BadArgument(problem, hint="leave --currency out, or say --force")
    return wanted or there or ""


def _is_known(db: Path, sku: str) -> bool:
    with reading(db) as replica:
        return any(
            replica.execute(f"SELECT 1 FROM {table} WHERE sku = ? LIMIT 1", (sku,)).fetchone()
            for table in ("products", "prices")
        )


def _minor(amount: str, currency: str) -> int:
    own.check_currency(currency)
    try:
        return minor_units(amount, currency)
    except ValueError as error:
        raise BadArgument(f"amount {error}") from None


def _seconds(text: str) -> int:
    try:
        return epoch_seconds(text)
    except ValueError as error:
        raise BadArgument(f"until {error}") from None


def _list(settings: Settings, now_ms: int, *, as_json: bool) -> None:
    path = settings.outbox_path
    rows: list[Override] = []
    acked_seq = 0
    if path.exists():
        with translated(path), closing(open_readonly(path, READ_TIMEOUT_S)) as db:
            check_outbox(db, path)
            rows = [each for each in own.read_if_there(db) if each.holds(now_ms // 1000)]
            acked_seq = standing_of(db).acked_seq
    if as_json:
        listed = [_document(each) | {"told": each.seq <= acked_seq} for each in rows]
        click.echo(json.dumps({"overrides": listed}, ensure_ascii=False))
        return
    for each in rows:
        amount = money_text(each.amount_minor, each.currency)
        told = "" if each.seq <= acked_seq else "  (HQ is not told yet)"
        click.echo(f"{each.sku:<16}{amount:>14}  until {rfc3339(each.ends_at * 1000)}  {each.reason}{told}")
    if not rows:
        click.echo("no override is in force", err=True)


def _document(each: Override) -> dict[str, Any]:
    return {
        "sku": each.sku,
        "amount_minor": each.amount_minor,
        "currency": each.currency,
        "starts_at": rfc3339(each.starts_at * 1000),
        "ends_at": rfc3339(each.ends_at * 1000),
        "reason": each.reason,
        "set_at": rfc3339(each.set_at_ms),
        "seq": each.seq,
    }
