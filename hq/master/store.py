"""The master: every stream's rows and its event log in one SQLite file, written in one transaction.

The only module that writes the table `events`; `hq.master.rows` and `hq.master.streams` write theirs for it.
Any number of processes may write: each transaction takes the write lock first. No connection checkpoints on its own:
`hq run` does (`hq.master.checkpointer`), and the last connection to close.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Self, cast

import msgspec

from hq.core.changes import Change, ChangeSet, Stored, Tip, check_as_a_store_would, earlier, parts, sequence
from hq.errors import MasterDamaged, MasterMissing
from hq.master import context_migration, rows, schema, streams, wakeup
from hq.master.connection import BUSY_TIMEOUT_S, connect, is_master, make_for_group, not_a_master, translated
from hq.master.records import Committed, EventRow, StreamRow, Tail
from hq.master.streams import Entropy
from storelink.contract.contexts import BUILT_IN, Contexts, Key, Row
from storelink.contract.rows import EMPTY
from storelink.contract.streams import SCOPE_ALL, Stream
from storelink.host.sqlite import insert, transaction

__all__ = ["Committed", "EventRow", "Master", "StreamRow", "Tail"]

ROWS_READ_MAX = 2**62

EVENT_COLUMNS = ("stream", "seq", "at_ms", "op", "key", "changed", "prev_seq", "row", "digest", "ends")

_GOES_ON = "UPDATE events SET ends = 0 WHERE stream = ? AND seq = ?"
"""The event that ended what was written so far is not the last of its change set."""

_decode_names = msgspec.json.Decoder(list[str]).decode
_decode_row = msgspec.json.Decoder(tuple[str | int | None, ...]).decode


def random_epoch() -> int:
    """What tells two epochs of the same millisecond apart."""
    return secrets.randbits(32)


class Master:
    """
    One connection to the master, used by the thread that opened it and no other.

    `with Master.open(path, contexts) as master:` closes it at the end. `writing()` makes one transaction of several
    commits, `reading()` one snapshot of several reads; outside of them each call is a transaction of its own. A crash
    leaves the last commit complete, and nothing of the one under way.
    """

    def __init__(self, path: Path, contexts: Contexts, connection: sqlite3.Connection, entropy: Entropy) -> None:
        """Take over an open connection; `Master.open` makes one."""
        self.path, self.contexts = path, contexts
        self._db, self._entropy = connection, entropy
        self._written = False

    @classmethod
    def open(cls, path: Path | str, contexts: Contexts, entropy: Entropy = random_epoch) -> Self:
        """
        Open the master at `path`, and make the tables of newly declared contexts.

        The first transaction that writes gives a context the columns that it has gained.

        Args:
            entropy: 32 bits that tell two epochs of the same millisecond apart.

        Raises:
            MasterMissing: there is no file.
            MasterDamaged: the file is no master, or one of another format.
            MasterBusy, MasterUnwritable: SQLite cannot open it.
        """
        path = Path(path)
        if not path.exists():
            raise MasterMissing(f"there is no master at {path}", hint="run: hq init (or set db / HQ_DB)")
        with translated(path), ExitStack() as undo:
            connection = undo.enter_context(closing(connect(path, "rw")))
            if not is_master(connection, path):
                raise not_a_master(path)
            if context_migration.is_due(connection, contexts, gains=False):
                with transaction(connection, "IMMEDIATE"):
                    context_migration.migrate(connection, contexts, entropy, gains=False)
            undo.pop_all()
        return cls(path, contexts, connection, entropy)

    @classmethod
    def create(cls, path: Path | str, contexts: Contexts, wall_ms: int, entropy: Entropy = random_epoch) -> bool:
        """
        Make the master at `path` with its chain-wide streams; `Master.open` opens it then.

        Returns:
            False if there is a master already; it is left as it is.

        Raises:
            MasterDamaged: the file is there, and is no master, or one of another format.
            MasterBusy, MasterUnwritable: SQLite cannot make or open it.
        """
        path = Path(path)
        with translated(path):
            make_for_group(path)
            with closing(connect(path, "rwc")) as connection, transaction(connection, "IMMEDIATE"):
                if is_master(connection, path):
                    return False
                if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise not_a_master(path)
                schema.create(connection)
                for context in BUILT_IN.values():
                    streams.add(connection, f"{context.name}/{SCOPE_ALL}", wall_ms, entropy)
                context_migration.migrate(connection, contexts, entropy, gains=True)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; nothing can be asked of this object afterwards."""
        self._db.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction over reads and commits; `hq run` is woken after it."""
        with self._transaction("IMMEDIATE"):
            self._written = context_migration.migrate(self._db, self.contexts, self._entropy, gains=True)
            yield
        if self._written:
            wakeup.notify(self.path)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One snapshot for several reads."""
        with self._transaction("DEFERRED"):
            yield

    def commit(
        self, stream: Stream, changes: Sequence[Change], wall_ms: int, live: Mapping[Key, Row] | None = None
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
                return self.commit(stream, changes, wall_ms, live)
        context_migration.check_known(self.query, stream)
        tip = began = self._tip(stream, wall_ms)
        deleted = {} if live is None else self._deleted(stream)
        for part in parts(changes):
            before = self._before(stream, part) if live is None else earlier(live, deleted, part)
            made = sequence(stream.context, tip, part, before, wall_ms)
            if not made.events:
                continue
            check_as_a_store_would(stream, made)
            if tip != began:
                self._db.execute(_GOES_ON, (str(stream), tip.head_seq))
            self._write(stream, made, wall_ms)
            self._written = True
            tip = Tip(made.head_seq, made.digest, made.count)
        return Committed(stream, began.head_seq + 1, tip.head_seq)

    def new_epoch(self, stream: Stream, wall_ms: int) -> str:
        """Begin a new incarnation of the stream's log, joining the open transaction; every replica will rebuild."""
        if not self._db.in_transaction:
            with self.writing():
                return self.new_epoch(stream, wall_ms)
        epoch = streams.begin_epoch(self._db, str(stream), wall_ms, self._entropy)
        self._written = True
        return epoch

    def epochs(self) -> list[tuple[str, str]]:
        """Every (stream, epoch) that the master ever had."""
        return streams.epochs(self.query)

    def epochs_among(self, stream: str, epochs: Iterable[str]) -> set[str]:
        """Those of some epochs that the master ever had of a stream, by its name."""
        sql = "SELECT 1 FROM epochs WHERE stream = ? AND epoch = ?"
        return {epoch for epoch in epochs if self.query(sql, (stream, epoch))}

    def remember_epochs(self, had: Iterable[tuple[str, str]]) -> None:
        """Count these (stream, epoch) among those that the master had; joins the open transaction."""
        streams.remember_epochs(self._db, had)

    def begin_epochs_after(self, heads: Mapping[str, str], wall_ms: int) -> None:
        """
        Go on from other heads, epochs by stream, as if they were the master's own; in one transaction.

        A stream of the master whose epoch is not later begins a new one: stores never go back to an earlier epoch.
        """
        with self.writing():
            self.remember_epochs(heads.items())
            for row in self.streams():
                if row.epoch < heads.get(str(row.stream), ""):
                    self.new_epoch(row.stream, wall_ms)

    def oldest_tombstones(self, stream: Stream, limit: int) -> list[tuple[int, int]]:
        """The seq of each of the oldest tombstones, and when (ms since 1970) its entity was deleted; lowest first."""
        found = self.query(rows.statements(stream.context).oldest_tombstones, (str(stream), stream.scope, limit))
        return [(seq, at_ms) for seq, at_ms in found]

    def remove_tombstones(self, stream: Stream, floor: int) -> int:
        """Remove the tombstones with a seq up to `floor`, the stream's floor from now on; returns how many."""
        if not self._db.in_transaction:
            with self.writing():
                return self.remove_tombstones(stream, floor)
        removed = rows.remove_tombstones(self._db, stream, floor)
        streams.raise_floor(self._db, str(stream), floor)
        return removed

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """Inside, another writer is not waited for: MasterBusy is raised at once."""
        self._db.execute("PRAGMA busy_timeout = 0")
        try:
            yield
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")

    def limit_memory(self, cache_bytes: int) -> None:
        """Let this connection keep at most so much of the file in memory."""
        self._db.execute(f"PRAGMA cache_size = -{cache_bytes // 1024}")

    def shrink_memory(self) -> None:
        """Give back what a burst of work left in this connection's cache."""
        self._db.execute("PRAGMA shrink_memory")

    def streams(self) -> list[StreamRow]:
        """All but those of contexts that are left out."""
        found = context_migration.known_streams(self.query, self.contexts)
        return [StreamRow(Stream.parse(name, self.contexts), *rest) for name, *rest in found]

    def stream(self, stream: Stream) -> StreamRow | None:
        """One stream; None if there is none, or if its context is left out."""
        if self.contexts.get(stream.context.name) != stream.context:
            return None
        found = context_migration.known_stream(self.query, self.contexts, str(stream))
        return None if found is None else StreamRow(stream, *found[1:])

    def streams_since(self, change: int) -> tuple[int, list[StreamRow], list[str]]:
        """
        What changed after a change, found without a look at the rest.

        Returns:
            The newest change, to ask from the next time; the streams that changed; and the names of those among them
            whose context is left out.
        """
        found = context_migration.changed_streams(self.query, self.contexts, change)
        newest = max((changed for changed, *_ in found), default=change)
        known = [StreamRow(Stream.parse(row[0], self.contexts), *row[1:]) for _, is_known, row in found if is_known]
        return newest, known, [row[0] for _, is_known, row in found if not is_known]

    def stored(self, stream: Stream, key: Key) -> Stored | None:
        """What the master holds of one entity."""
        context_migration.check_known(self.query, stream)
        found = self.query(rows.statements(stream.context).one, (stream.scope, *key))
        return rows.stored(stream.context, found[0]) if found else None

    def live_rows(self, stream: Stream) -> dict[Key, Row]:
        """Every live row of a stream, by key."""
        context_migration.check_known(self.query, stream)
        context = stream.context
        width = 1 + len(context.keys)
        found = self.query(rows.statements(context).live, (stream.scope,))
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
        found = self.query(rows.statements(stream.context).between, bounds)
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
        live, deleted = self.rows_between(stream, after + 1, row.head_seq, limit)
        ends = [cast(int, part[-1][0]) for part in (live, deleted) if part]
        last_seq = max(ends, default=after)
        more = len(live) + len(deleted) == limit and self.count_by_range(stream, [(last_seq + 1, row.head_seq)]) != [0]
        return Tail(row, live, deleted, more, last_seq)

    def count_by_range(self, stream: Stream, ranges: Sequence[tuple[int, int]]) -> list[int]:
        """How many rows and tombstones have a seq in each range."""
        sql = rows.statements(stream.context).count
        return [self.query(sql, (stream.scope, *span))[0][0] for span in ranges]

    def digest_at(self, stream: Stream, seq: int) -> str:
        """The stream's digest after the event `seq`."""
        found = self.find_digest(stream.name, seq)
        if found is None:
            raise MasterDamaged(f"{stream} has no event {seq} in {self.path}", hint="run: hq verify")
        return found

    def find_digest(self, stream: str, seq: int) -> str | None:
        """The digest of a stream, by its name, after the event `seq`; None if the log has no such event."""
        reshaped = [r.digest for r in context_migration.reshapes(self.query, stream) if r.seq == seq]
        if seq == 0 or reshaped:
            return reshaped[-1] if reshaped else EMPTY
        found = self.query("SELECT digest FROM events WHERE stream = ? AND seq = ?", (stream, seq))
        return str(found[0][0]) if found else None

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Read; for questions that only one command asks."""
        with translated(self.path):
            return self._db.execute(sql, parameters).fetchall()

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        with translated(self.path), transaction(self._db, kind):
            yield

    def _before(self, stream: Stream, changes: Sequence[Change]) -> dict[Key, Stored]:
        context, sql, scope, db = stream.context, rows.statements(stream.context).one, stream.scope, self._db
        found = ((key, db.execute(sql, (scope, *key)).fetchone()) for key, _ in changes)
        return {key: rows.stored(context, row) for key, row in found if row}

    def _deleted(self, stream: Stream) -> dict[Key, Stored]:
        found = self._db.execute(rows.statements(stream.context).deleted, (stream.scope,))
        return {stream.context.key_of(row): Stored(row, True) for row in found}

    def _tip(self, stream: Stream, wall_ms: int) -> Tip:
        row = self.stream(stream)
        if row is None:
            streams.add(self._db, str(stream), wall_ms, self._entropy)
            self._written = True
            return Tip(0, EMPTY, 0)
        return Tip(row.head_seq, row.digest, row.rows)

    def _write(self, stream: Stream, made: ChangeSet, wall_ms: int) -> None:
        rows.write(self._db, stream, made.rows)
        insert(self._db, "events", EVENT_COLUMNS, ((str(stream), *event) for event in made.events))
        streams.set_head(self._db, str(stream), made.head_seq, made.digest, made.count, wall_ms)
