"""The outbox: entries from store software to HQ; on disk before they are accepted, kept until HQ has them on disk.

`outbox.db` is precious, as the replica is not: every commit is `synchronous=FULL`. Any process may append, without
network and without daemon; the daemon alone removes. Seqs have no gaps: entries leave in order only. No connection
checkpoints automatically; a checkpoint holds off writers meanwhile (sqlite.org/wal.html#walresetbug). The file is
group-writable, and SQLite gives its -wal and -shm the same mode, so that tills of the daemon's group may append.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from storelink.contract.errors import ContractViolation
from storelink.contract.limits import BATCH_BYTES_TARGET
from storelink.contract.streams import new_epoch
from storelink.contract.upstream import Entry, Refusal, checked_at_ms, checked_json, checked_type
from storelink.host.sqlite import transaction
from storelink.host.wakeup import wake, wakeup_address
from storenode.config import OUTBOX_MAX_BYTES
from storenode.errors import BadArgument, OutboxFull
from storenode.outbox.file import OutboxState, check_outbox, connect, create, outbox_state, translated

BUSY_TIMEOUT_S = 10.0
CHECKPOINT_ABOVE_BYTES = 4_194_304
ENTRY_OVERHEAD_BYTES = 40

Also = Callable[[sqlite3.Connection, int], None]


def _nothing(_db: sqlite3.Connection, _seq: int) -> None:
    """Nothing else is written with an entry."""


WAKEUP = "outbox"
"""Names the daemon that an append wakes, in `wakeup_address`."""


class Outbox:
    """
    An outbox, opened by `with Outbox(path) as outbox:` or by `open`.

    Threads: any thread may make the object; the one that opens it owns it until `close`. Threads and processes that
    append at the same time have one Outbox each; SQLite puts their commits in order.

    Args:
        path: the file; it is made when the outbox is opened, if it is not there.
        max_bytes: an append that would make the file larger raises OutboxFull.
        busy_timeout_s: how long a method waits for another writer before it raises OutboxBusy.
    """

    def __init__(
        self, path: Path | str, max_bytes: int = OUTBOX_MAX_BYTES, *, busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> None:
        self.path = Path(path)
        self._max_bytes, self._busy_timeout_s = max_bytes, busy_timeout_s
        self._connection: sqlite3.Connection | None = None

    def open(self) -> Self:
        """
        Open the file, and return this outbox; one that is open stays so.

        Raises:
            OutboxBusy, OutboxFull, OutboxUnwritable, OutboxDamaged: as named.
        """
        if self._connection is None:
            with translated(self.path):
                if not self.path.exists():
                    create(self.path)
                db = connect(self.path, self._busy_timeout_s)
                try:
                    check_outbox(db, self.path)
                except BaseException:
                    db.close()
                    raise
            self._connection = db
        return self

    def close(self) -> None:
        """Let go of the file; `open` opens it again."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ValueError(f"the outbox {self.path} is not open: use `with Outbox(path) as outbox`, or open()")
        return self._connection

    def append(self, kind: str, value: Any, at_ms: int | None = None) -> int:
        """Append one entry: any JSON value. See `append_json`."""
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise BadArgument(f"the data of an entry must be JSON: {error}") from error
        return self.append_json(kind, text, at_ms)

    def append_json(self, kind: str, text: str, at_ms: int | None = None, *, also: Also = _nothing) -> int:
        """
        Append one entry and return its seq, once it is on disk.

        Args:
            kind: the entry's type, as in `sale.total`.
            text: one JSON value; numbers stay spelled as they are.
            at_ms: since 1970; now if left out.
            also: what is written in the same transaction, given the connection and the seq; what it raises undoes both.

        Raises:
            BadArgument: not a type, or not strict JSON, or too large, or a time that cannot travel.
            OutboxFull: the cap is reached or the disk is full; nothing is lost, and nothing was appended.
            OutboxBusy, OutboxUnwritable, OutboxDamaged: as named; nothing was appended. But when it was a sync that
                the disk refused, and the process dies before it can write again, the entry may be found appended.
        """
        try:
            wall_ms = time.time_ns() // 1_000_000
            row = (checked_type(kind), checked_at_ms(wall_ms if at_ms is None else at_ms), checked_json(text))
        except ContractViolation as violation:
            raise BadArgument(f"{violation.field or 'data'}: {violation.detail}") from violation
        with self._writing():
            used = self._used_bytes()
            if used + len(row[2].encode()) > self._max_bytes:
                raise OutboxFull(
                    f"{self.path} holds {used} bytes of at most {self._max_bytes}",
                    hint="is the line to HQ up? storenode status; or raise outbox_max_bytes",
                )
            seq = self._db.execute("INSERT INTO entries(type, at_ms, data) VALUES(?, ?, ?)", row).lastrowid
            assert seq is not None
            also(self._db, seq)
        wake(wakeup_address(WAKEUP, self.path))
        self.checkpoint()
        return seq

    def state(self) -> OutboxState:
        with translated(self.path):
            return outbox_state(self._db)

    def changed(self) -> int:
        """A number that differs when another process has committed since it was last asked."""
        with translated(self.path):
            found: int = self._db.execute("PRAGMA data_version").fetchone()[0]
        return found

    def after(self, seq: int, entries_max: int) -> tuple[list[Entry], list[Refusal]]:
        """The entries behind `seq`, as many as one batch may hold, and those among them that are withheld."""
        entries: list[Entry] = []
        withheld: list[Refusal] = []
        size_bytes = 0
        with translated(self.path):
            rows = self._db.execute(
                "SELECT seq, type, at_ms, data, withheld FROM entries WHERE seq > ? ORDER BY seq LIMIT ?",
                (seq, entries_max),
            )
            for number, kind, at_ms, text, reason in rows:
                size_bytes += ENTRY_OVERHEAD_BYTES + (len(text.encode()) + len(kind) if reason is None else 0)
                if size_bytes > BATCH_BYTES_TARGET and (entries or withheld):
                    break
                if reason is None:
                    entries.append(Entry(number, kind, at_ms, text))
                else:
                    withheld.append(Refusal(number, reason))
        return entries, withheld

    def withhold(self, seq: int, reason: str) -> None:
        """Mark an entry that cannot be sent; HQ gets the reason in its place."""
        with self._writing():
            self._db.execute("UPDATE entries SET withheld = coalesce(withheld, ?) WHERE seq = ?", (reason, seq))

    def remove_acked(self, seq: int, refused: Sequence[Refusal]) -> None:
        """Remove the entries up to `seq`, which HQ has on its disk; those that it refused are kept apart."""
        with self._writing():
            db = self._db
            for refusal in refused:
                db.execute("UPDATE entries SET withheld = ? WHERE seq = ?", (refusal.reason, refusal.seq))
            db.execute(
                "INSERT OR REPLACE INTO refused SELECT (SELECT epoch FROM outbox), seq, type, at_ms, data, withheld"
                " FROM entries WHERE seq <= ? AND withheld IS NOT NULL",
                (seq,),
            )
            db.execute("DELETE FROM entries WHERE seq <= ?", (seq,))
            db.execute("UPDATE outbox SET acked_seq = max(acked_seq, ?)", (seq,))

    def renew(self, wall_ms: int, restated: Callable[[sqlite3.Connection, int], Iterable[tuple[str, str]]]) -> str:
        """
        Begin a new epoch, and return it: HQ knows the present one from a later copy of this file.

        Args:
            restated: reads from the connection what HQ must hear again in the new epoch: types and JSON texts, which
                are appended to what is pending.
        """
        epoch = new_epoch(wall_ms, secrets.randbits(32))
        with self._writing():
            self._db.execute("UPDATE outbox SET epoch = ?", (epoch,))
            again = [(kind, wall_ms, text) for kind, text in restated(self._db, wall_ms)]
            self._db.executemany("INSERT INTO entries(type, at_ms, data) VALUES(?, ?, ?)", again)
        return epoch

    def forget_refused(self) -> int:
        """Drop the entries that HQ refused; returns how many."""
        with self._writing():
            return self._db.execute("DELETE FROM refused").rowcount

    def checkpoint(self, above_bytes: int = CHECKPOINT_ABOVE_BYTES) -> None:
        """Move a log that has grown into the file, while holding off writers; do nothing while one is at work."""
        with suppress(OSError):
            if self.path.with_name(self.path.name + "-wal").stat().st_size <= above_bytes:
                return
            with suppress(sqlite3.Error), closing(connect(self.path, 0.0)) as guard:
                guard.execute("BEGIN IMMEDIATE")
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                guard.execute("ROLLBACK")

    def _used_bytes(self) -> int:
        pages, free, size = (
            int(self._db.execute(f"PRAGMA {p}").fetchone()[0]) for p in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with translated(self.path), transaction(self._db):
            yield
