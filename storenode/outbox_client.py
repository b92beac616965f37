"""The outbox as programs at a store use it: tell HQ something, set prices of this store's own, see what HQ has not yet.

    with Outbox("/var/lib/storenode/outbox.db") as outbox:
        seq = outbox.append("sale.total", {"till": 3, "amount_minor": 1299})

What the daemon does with an outbox is in storenode/outbox. The functions read without making or changing a file.
Guide: docs/library-store.md.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self, cast

from storelink.contract.money import minor_units
from storelink.contract.times import epoch_seconds, rfc3339
from storelink.host.locks import lock_instance, lock_path
from storenode.config import OUTBOX_MAX_BYTES
from storenode.core.overrides import COLUMNS
from storenode.core.overrides import Override as Stored
from storenode.documents import (
    AcceptedEntry,
    ChangedOverride,
    OutboxListing,
    OutboxStatus,
    Override,
    OverrideInForce,
)
from storenode.errors import BadArgument, NotFound, StorenodeError
from storenode.outbox import override_copy, overrides, store
from storenode.outbox.file import check_outbox, outbox_state, translated
from storenode.outbox.status import outbox_status, read_outbox
from storenode.replica import queries
from storenode.replica.file import reading
from storenode.replica.status import daemon_alive

COPY_WAIT_S = 5.0
"""How long to wait for the daemon to take an override over; it takes some milliseconds."""

COPY_POLL_S = 0.02


class Outbox:
    """
    An outbox that this program writes; opened with the first entry, and made if it is not there.

    Owned by the thread that writes the first entry. Any number of programs may have one open. When `append` returns,
    the entry is on disk, also after a power cut; it needs no daemon and no network.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        replica: Path | str | None = None,
        store_id: str | None = None,
        max_bytes: int = OUTBOX_MAX_BYTES,
    ) -> None:
        """
        Args:
            path: the outbox, the setting `outbox`.
            replica: the replica, the setting `db`; only overrides need it.
            store_id: the setting of that name; as the daemon last wrote it into the replica if left out.
            max_bytes: the setting `outbox_max_bytes`: beyond it, entries are refused.
        """
        self.path = Path(path)
        self._replica = None if replica is None else Path(replica)
        self._store_id = store_id
        self._max_bytes = max_bytes
        self._opened: store.Outbox | None = None
        self._stack: ExitStack | None = None

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        return self

    def __exit__(self, *_: object) -> None:
        stack, self._stack, self._opened = self._stack, None, None
        if stack is not None:
            stack.close()

    def append(self, kind: str, value: Any) -> int:
        """
        Append an entry and return its seq, once it is on disk.

        Args:
            kind: the entry's type, as in `sale.total`; 1 to 64 of A-Z a-z 0-9 . _ -; `storenode.` is ours.
            value: any JSON value of at most 64 KiB.

        Raises:
            BadArgument: not such a type or value.
            OutboxFull: `max_bytes` is reached or the disk is full; nothing was appended, nothing is lost.
            OutboxBusy, OutboxUnwritable, OutboxDamaged: as named; nothing was appended.
        """
        return self._writer().append(kind, value)

    def append_json(self, kind: str, text: str) -> AcceptedEntry:
        """Append one JSON value as it is spelled, numbers too. Raises as `append`."""
        at_ms = time.time_ns() // 1_000_000
        seq = self._writer().append_json(kind, text, at_ms)
        return {"epoch": self._writer().state().epoch, "seq": seq, "type": kind, "time": rfc3339(at_ms)}

    def status(self) -> OutboxStatus:
        """What waits for HQ. Never raises: nulls where the file cannot be read."""
        return cast(OutboxStatus, outbox_status(self.path))

    def entries(self, limit: int) -> OutboxListing:
        """What waits for HQ, the oldest first, and what was refused; at most `limit` of each."""
        return outbox_entries(self.path, limit)

    def forget_refused(self) -> int:
        """Drop the entries that were refused; returns how many."""
        return self._writer().forget_refused()

    def set_override(
        self,
        sku: str,
        amount: str,
        *,
        until: datetime | str,
        reason: str,
        currency: str | None = None,
        force: bool = False,
    ) -> ChangedOverride:
        """
        Set a price of this store's own, from now on; it wins over every price of HQ until it ends. HQ is told.

        Args:
            amount: decimal, in the currency's major unit: `1.49`.
            until: when it ends.
            reason: why, 1 to 200 characters; HQ is told.
            currency: that of the price in force if left out.
            force: also for a SKU that the replica does not know, or in another currency than its price's.

        Returns:
            the override; `effective` is false where readers do not see it yet: they will once the daemon runs.

        Raises:
            BadArgument: a value out of its bounds, the end in the past, another currency; nothing changed.
            NotFound: the replica does not know the SKU.
            What `append` raises, and without `force` what a read of the replica raises; nothing changed.
        """
        ends_at = _seconds(until)
        priced_in = _currency(self._replica_path, sku, currency, force=force)
        amount_minor = _minor(amount, priced_in)
        wall_ms = queries.price_now_ms(self._replica_path)
        done = overrides.put(self._writer(), sku, amount_minor, priced_in, ends_at, reason, wall_ms)
        return {**_document(done), "withdrawn": False, "effective": self._wait_copied(done)}

    def withdraw_override(self, sku: str) -> ChangedOverride:
        """End the override of a SKU now. Raises NotFound: none is in force; and what `append` raises."""
        done = overrides.withdraw(self._writer(), sku, queries.price_now_ms(self._replica_path))
        return {**_document(done), "withdrawn": True, "effective": self._wait_copied(done)}

    def overrides(self) -> list[OverrideInForce]:
        """The overrides in force, by SKU."""
        return overrides_in_force(self.path, self._replica_path)

    def _writer(self) -> store.Outbox:
        """The open outbox; the first call opens it."""
        if self._stack is None:
            raise RuntimeError("an Outbox is open within its `with` block")
        if self._opened is None:
            self._opened = self._stack.enter_context(store.Outbox(self.path, self._max_bytes))
        return self._opened

    @property
    def _replica_path(self) -> Path:
        if self._replica is None:
            raise BadArgument("overrides need the replica", hint='Outbox(path, replica="replica.db")')
        return self._replica

    def _wait_copied(self, done: Stored) -> bool:
        """Wait until readers see it: the daemon copies it, or with the daemon dead this program does."""
        replica = self._replica_path
        deadline_s = time.monotonic() + COPY_WAIT_S
        while not _is_copied(replica, done):
            if not replica.exists() or time.monotonic() > deadline_s:
                return False
            try:
                lock = lock_instance(lock_path(replica))
            except OSError:  # this user may not take the daemon's place
                if not daemon_alive(replica):
                    return False
                lock = None
            if lock is not None:
                with lock:
                    store_id = self._store_id or _store_id(replica)
                    return store_id is not None and override_copy.copy_alone(replica, self.path, store_id)
            time.sleep(COPY_POLL_S)
        return True


def outbox_entries(path: Path, limit: int) -> OutboxListing:
    """What waits for HQ, the oldest first, and what was refused. Raises NotFound: there is no outbox."""
    if not path.exists():
        raise NotFound(f"there is no outbox at {path}", hint="storenode emit makes it; is the setting outbox right?")
    with reading_outbox(path) as db:
        found = outbox_state(db)
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


def overrides_in_force(path: Path, replica: Path) -> list[OverrideInForce]:
    """The overrides in force by the replica's clock, by SKU; none where there is no outbox."""
    if not path.exists():
        return []
    now_s = queries.price_now_ms(replica) // 1000
    with reading_outbox(path) as db:
        acked_seq = outbox_state(db).acked_seq
        rows = [each for each in overrides.read(db) if each.holds(now_s)]
    return [{**_document(each), "told": each.seq <= acked_seq} for each in rows]


@contextmanager
def reading_outbox(path: Path) -> Iterator[sqlite3.Connection]:
    """One state of an outbox, read-only."""
    with translated(path), closing(read_outbox(path)) as db:
        check_outbox(db, path)
        db.execute("BEGIN")
        yield db


def _is_copied(replica: Path, done: Stored) -> bool:
    try:
        with reading(replica) as db:
            row = db.execute(
                f"SELECT {COLUMNS} FROM overrides WHERE sku = ? AND seq = ?", (done.sku, done.seq)
            ).fetchone()
    except StorenodeError:
        return False
    return row is not None and Stored(*row) == done


def _store_id(replica: Path) -> str | None:
    """Whose replica it is, as the daemon last wrote it."""
    with reading(replica) as db:
        row = db.execute("SELECT store_id FROM daemon").fetchone()
    return row[0] if row else None


def _currency(replica: Path, sku: str, wanted: str | None, *, force: bool) -> str:
    """The currency to price a SKU in; refuses one that this replica does not know, or that differs from its price's."""
    there: str | None = None
    try:
        there = str(queries.price(replica, sku, None)["currency"])
    except NotFound:
        if not force and not _is_known(replica, sku):
            raise NotFound(f"this replica knows no SKU {sku[:80]}", hint="check the SKU, or add --force") from None
    except StorenodeError:
        if not force:
            raise
    if wanted is None and there is None:
        raise BadArgument(f"{sku[:80]} has no price now to take the currency from", hint="name it: --currency EUR")
    if wanted is not None and there not in (None, wanted) and not force:
        problem = f"{sku[:80]} is priced in {there}, not in {wanted[:40]}"
        raise BadArgument(problem, hint="leave --currency out, or add --force")
    return wanted or there or ""


def _is_known(replica: Path, sku: str) -> bool:
    with reading(replica) as db:
        return any(
            db.execute(f"SELECT 1 FROM {table} WHERE sku = ? LIMIT 1", (sku,)).fetchone()
            for table in ("products", "prices")
        )


def _minor(amount: str, currency: str) -> int:
    overrides.check_currency(currency)
    try:
        return minor_units(amount, currency)
    except ValueError as error:
        raise BadArgument(f"amount {error}") from None


def _seconds(until: datetime | str) -> int:
    try:
        return epoch_seconds(until.isoformat() if isinstance(until, datetime) else until)
    except ValueError as error:
        raise BadArgument(f"until {error}") from None


def _document(each: Stored) -> Override:
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
