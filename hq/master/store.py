"""The master: every stream's rows and its event log in one SQLite file, written in one transaction.

Any number of processes may write: each transaction takes the write lock first. Nobody checkpoints on
their own; `hq run` calls `checkpoint`, and the last connection to close does.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self, cast

import msgspec

from hq.core.changes import Change, ChangeSet, Stored, Tip, check_as_a_store_would, earlier, parts, sequence
from hq.errors import MasterDamaged, MasterMissing
from hq.master import context_migration, epochs, schema, wakeup
from hq.master.connection import connect, is_master, make_for_group, not_a_master, translated
from hq.master.records import Committed, EventRow, StreamRow, Tail
from storelink.contract.contexts import BUILT_IN, Contexts, Key, Row
from storelink.contract.digest import EMPTY
from storelink.contract.streams import SCOPE_ALL, Stream
from storelink.host.sqlite import insert, transaction

__all__ = ["Committed", "EventRow", "Master", "StreamRow", "Tail"]

ROWS_READ_MAX = 2**62

CHECKPOINT_ABOVE_BYTES = 8_388_608
"""Size of the write-ahead log at which it is moved into the file."""

_decode_names = msgspec.json.Decoder(list[str]).decode
_decode_row = msgspec.json.Decoder(tuple[str | int | None, ...]).decode


def random_epoch() -> int:
    """What tells two epochs of the same millisecond apart."""
    return secrets.randbits(32)


class Master:
    """One connection to the master, opened at first use; owned by one thread.

    A crash leaves the last commit, whole. `entropy` names epochs. Opening it makes the tables of newly declared
    contexts; the first transaction that writes gives a context the columns that it has gained.
    """

    def __init__(self, path: Path | str, contexts: Contexts, entropy: Callable[[], int] = random_epoch) -> None:
        self.path, self.contexts = Path(path), contexts
        self._entropy = entropy
        self._opened: sqlite3.Connection | None = None
        self._written = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def create(self, now_ms: int) -> bool:
        """Make the master with its chain-wide streams. Returns False if it was there, whole, already."""
        with translated(self.path):
            make_for_group(self.path)
            self._opened = self._opened or connect(self.path, "rwc")
        with self._transaction("IMMEDIATE"):
            if is_master(self._db, self.path):
                return False
            if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise not_a_master(self.path)
            schema.create(self._db)
            for context in BUILT_IN.values():
                self._add_stream(Stream(context, SCOPE_ALL), now_ms)
            context_migration.take_in(self._db, self.contexts, self._entropy, gains=True)
        return True

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction over reads and commits; `hq run` is woken after it."""
        with self._transaction("IMMEDIATE"):
            self._written = context_migration.take_in(self._db, self.contexts, self._entropy, gains=True)
            yield
        if self._written:
            wakeup.notify(self.path)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One snapshot for several reads."""
        with self._transaction("DEFERRED"):
            yield

    def commit(
        self, stream: Stream, changes: Sequence[Change], now_ms: int, live: Mapping[Key, Row] | None = None
    ) -> Committed:
        """
        Write one change set: rows, events and stream in one transaction, joining the one that is open.

        Args:
            live: what `live_rows` returned in this transaction; spares a large change set a question for each key.

        Raises:
            ContractViolation: a store would refuse a row. Parts may be written already: the open transaction must fail.
        """
        if not self._db.in_transaction:
            with self.writing():
                return self.commit(stream, changes, now_ms, live)
        context_migration.check_known(self.query, stream)
        tip = began = self._tip(stream, now_ms)
        deleted = {} if live is None else self._deleted(stream)
        for part in parts(changes):
            before = self._before(stream, part) if live is None else earlier(live, deleted, part)
            made = sequence(stream.context, tip, part, before, now_ms)
            if not made.events:
                continue
            check_as_a_store_would(stream, made)
            if tip != began:
                self._db.execute(schema.GOES_ON, (str(stream), tip.head_seq))
            self._write(stream, made, now_ms)
            self._written = True
            tip = Tip(made.head_seq, made.digest, made.count)
        return Committed(stream, began.head_seq + 1, tip.head_seq)

    def new_epoch(self, stream: Stream, now_ms: int) -> str:
        """Begin a new incarnation of the stream's log, joining the open transaction; every replica will rebuild."""
        if not self._db.in_transaction:
            with self.writing():
                return self.new_epoch(stream, now_ms)
        epoch = epochs.begin(self._db, str(stream), now_ms, self._entropy)
        self._db.execute("UPDATE streams SET epoch = ? WHERE stream = ?", (epoch, str(stream)))
        self._written = True
        return epoch

    def limit_memory(self, cache_bytes: int) -> None:
        """Let this connection keep at most so much of the file in memory."""
        self._db.execute(f"PRAGMA cache_size = -{cache_bytes // 1024}")

    def checkpoint(self, wait_ms: int = 0) -> None:
        """
        Move the write-ahead log into the file as far as readers let it; only `hq run` calls this.

        It holds off writers meanwhile, and does nothing if they leave no room within `wait_ms`: SQLite before 3.51.3
        can damage the file when a commit and a checkpoint of two connections meet (sqlite.org/wal.html#walresetbug).
        """
        if self.path.with_name(self.path.name + "-wal").stat().st_size < CHECKPOINT_ABOVE_BYTES:
            return
        with translated(self.path), closing(connect(self.path, "rw")) as guard:
            guard.execute(f"PRAGMA busy_timeout = {wait_ms}")
            try:
                guard.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            guard.execute("ROLLBACK")

    def streams(self) -> list[StreamRow]:
        """All but those of contexts that are left out."""
        found = context_migration.streams(self.query, self.contexts)
        return [StreamRow(Stream.parse(name, self.contexts), *rest) for name, *rest in found]

    def stream(self, stream: Stream) -> StreamRow | None:
        return next((row for row in self.streams() if row.stream == stream), None)

    def stored(self, stream: Stream, key: Key) -> Stored | None:
        """What the master holds of one entity."""
        context_migration.check_known(self.query, stream)
        found = self.query(schema.statements(stream.context).one, (stream.scope, *key))
        return schema.stored(stream.context, found[0]) if found else None

    def live_rows(self, stream: Stream) -> dict[Key, Row]:
        """Every live row of a stream, by key."""
        context_migration.check_known(self.query, stream)
        context = stream.context
        width = 1 + len(context.keys)
        found = self.query(schema.statements(context).live, (stream.scope,))
        return {cast(Key, row[1:width]): row for row in found}

    def events_after(self, stream: Stream, seq: int, limit: int) -> list[EventRow]:
        """Up to `limit` events with a seq above `seq`, in order."""
        found = self.query(
            "SELECT seq, op, changed, row, prev_seq, digest, ends, at_ms FROM events"
            " WHERE stream = ? AND seq > ? ORDER BY seq LIMIT ?",
            (str(stream), seq, limit),
        )
        return [
            EventRow(s, op, _decode_names(changed), _decode_row(row), prev, digest, bool(ends), at_ms)
            for s, op, changed, row, prev, digest, ends, at_ms in found
        ]

    def rows_between(
        self, stream: Stream, first: int, last: int, limit: int | None = None
    ) -> tuple[list[Row], list[Row]]:
        """Rows and tombstones `(seq, *keys)` with a seq in `first..last`; at most `limit` together, lowest first."""
        bounds = (stream.scope, first, last, ROWS_READ_MAX if limit is None else limit)
        found = self.query(schema.statements(stream.context).between, bounds)
        width = 1 + len(stream.context.keys)
        return [row[:-1] for row in found if not row[-1]], [row[:width] for row in found if row[-1]]

    def tail(self, stream: Stream, after: int, limit: int) -> Tail:
        """Up to `limit` rows and tombstones with a seq above `after`, with the stream as of the same moment."""
        if not self._db.in_transaction:
            with self.reading():
                return self.tail(stream, after, limit)
        row = self.stream(stream)
        if row is None:
            raise MasterDamaged(f"{self.path} has no stream {stream}", hint="run: hq verify")
        rows, deleted = self.rows_between(stream, after + 1, row.head_seq, limit)
        ends = [cast(int, part[-1][0]) for part in (rows, deleted) if part]
        last_seq = max(ends, default=after)
        more = len(rows) + len(deleted) == limit and self.count_by_range(stream, [(last_seq + 1, row.head_seq)]) != [0]
        return Tail(row, rows, deleted, more, last_seq)

    def count_by_range(self, stream: Stream, ranges: Sequence[tuple[int, int]]) -> list[int]:
        """How many rows and tombstones have a seq in each range."""
        sql = schema.statements(stream.context).count
        return [self.query(sql, (stream.scope, *span))[0][0] for span in ranges]

    def digest_at(self, stream: Stream, seq: int) -> str:
        """The stream's digest after the event `seq`."""
        reshaped = [r.digest for r in context_migration.reshapes(self.query, stream.name) if r.seq == seq]
        if seq == 0 or reshaped:
            return reshaped[-1] if reshaped else EMPTY
        found = self.query("SELECT digest FROM events WHERE stream = ? AND seq = ?", (str(stream), seq))
        if not found:
            raise MasterDamaged(f"{stream} has no event {seq} in {self.path}", hint="run: hq verify")
        return str(found[0][0])

    @property
    def _db(self) -> sqlite3.Connection:
        if self._opened is None:
            if not self.path.exists():
                raise MasterMissing(f"there is no master at {self.path}", hint="run: hq init (or set db / HQ_DB)")
            with translated(self.path):
                self._opened = connect(self.path, "rw")
                if not is_master(self._opened, self.path):
                    self.close()
                    raise not_a_master(self.path)
                due = context_migration.is_due(self._opened, self.contexts, gains=False)
            if due:
                with self._transaction("IMMEDIATE"):
                    context_migration.take_in(self._opened, self.contexts, self._entropy, gains=False)
        return self._opened

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Read; for questions that only one command asks."""
        with translated(self.path):
            return self._db.execute(sql, parameters).fetchall()

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        db = self._db
        with translated(self.path), transaction(db, kind):
            yield

    def _before(self, stream: Stream, changes: Sequence[Change]) -> dict[Key, Stored]:
        context, sql, scope, db = stream.context, schema.statements(stream.context).one, stream.scope, self._db
        found = ((key, db.execute(sql, (scope, *key)).fetchone()) for key, _ in changes)
        return {key: schema.stored(context, row) for key, row in found if row}

    def _deleted(self, stream: Stream) -> dict[Key, Stored]:
        found = self._db.execute(schema.statements(stream.context).deleted, (stream.scope,))
        return {stream.context.key_of(row): Stored(row, True) for row in found}

    def _tip(self, stream: Stream, now_ms: int) -> Tip:
        row = self.stream(stream)
        if row is None:
            self._add_stream(stream, now_ms)
            return Tip(0, EMPTY, 0)
        return Tip(row.head_seq, row.digest, row.rows)

    def _add_stream(self, stream: Stream, now_ms: int) -> None:
        self._db.execute(
            "INSERT INTO streams (stream, epoch, head_seq, digest, rows, floor, updated_at_ms)"
            " VALUES (?, ?, 0, ?, 0, 0, ?)",
            (str(stream), epochs.begin(self._db, str(stream), now_ms, self._entropy), EMPTY, now_ms),
        )
        self._written = True

    def _write(self, stream: Stream, made: ChangeSet, now_ms: int) -> None:
        context = stream.context
        blank = (None,) * len(context.values)
        sql, name = schema.statements(context), str(stream)
        rows = ((stream.scope, *row, *blank, 1) if deleted else (stream.scope, *row, 0) for row, deleted in made.rows)
        insert(self._db, f"master_{context.name}", sql.columns, rows, sql.upsert)
        insert(self._db, "events", schema.EVENT_COLUMNS, ((name, *event) for event in made.events))
        self._db.execute(
            "UPDATE streams SET head_seq = ?, digest = ?, rows = ?, updated_at_ms = ? WHERE stream = ?",
            (made.head_seq, made.digest, made.count, now_ms, name),
        )
