"""The replica's one writing connection: position and rows change in one transaction, whole change sets only.

Owned by the writer thread. Everyone else opens the file read-only. `synchronous=NORMAL`: what a power cut takes back
is fetched again. A crash leaves the last committed state; nothing here needs repair afterwards.

This module is the one writer of the rows (`write_rows`, `remove_rows`) and of `daemon`. Each other table has a module
of its own, which the writer calls within its transactions.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Self, cast

from storelink.contract.contexts import PRODUCT, Context, Contexts, Row
from storelink.contract.rows import Held
from storelink.contract.status import MessageRefusal
from storelink.contract.streams import Stream
from storelink.host.sqlite import transaction
from storenode.errors import ReplicaDamaged
from storenode.replica import schema
from storenode.replica.contexts import adopt, forget_shape
from storenode.replica.file import REPLACED_HINT, translated
from storenode.replica.provenance import CATCH_UP, Commit, Provenance
from storenode.replica.quarantine import Quarantine
from storenode.replica.search_index import SearchIndex
from storenode.replica.streams import Streams, StreamState

BUSY_TIMEOUT_S = 5.0
CACHE_KIB = 32_768
WAL_KEPT_BYTES_MAX = 4 * 1024 * 1024
"""What the log's file is cut back to when it starts over after a large transaction."""

ROWS_PER_STATEMENT = 32
"""Rows that one INSERT writes: a fifth faster than one each."""

CLOSING_BUSY_TIMEOUT_MS = 200
"""A clean stop does not wait for readers."""

RowBatch = tuple[Sequence[Row], Sequence[Row]] | tuple[Sequence[Row], Sequence[Row], Sequence[Held]]
"""Rows, tombstones `(seq, *keys)`, and what is held for breaking a rule; nothing is held if that part is left out."""


class Replica:
    """
    The writer of one replica file.

    Attributes:
        contexts: all that this process knows.
        left_out: the contexts that cannot be followed here, each with the reason.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, contexts: Contexts) -> None:
        self.path, self.connection, self.contexts = path, connection, contexts
        self.left_out: Mapping[str, str] = {}
        self._streams = Streams(connection)
        self._search = SearchIndex(connection)
        self._provenance = Provenance(connection)
        self._quarantine = Quarantine(connection, self._streams)

    @classmethod
    def open(cls, path: Path, scopes: Sequence[str], contexts: Contexts) -> Self:
        """
        Open the replica at `path`, or make it; what the configuration no longer follows is let go of.

        Args:
            scopes: as configured (`zone-west`, `price/zone-west`), from the least to the most specific.

        Raises:
            ReplicaDamaged: a file that is none, not sound, or of another format.
            ReplicaBusy, ReplicaUnwritable: as named.
        """
        with translated(path):
            # Autocheckpoint off: only `checkpoint` moves the log, so a commit never waits for it.
            connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_S)
            try:
                is_new = _is_new(connection, path)
                _configure(connection)
                replica = cls(path, connection, contexts)
                replica._follow(scopes, is_new=is_new)
            except BaseException:
                connection.close()
                raise
        return replica

    def close(self) -> None:
        """Close the file. The last connection removes -wal and -shm; the daemon ends by `close_for_readers` instead."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _follow(self, scopes: Sequence[str], *, is_new: bool) -> None:
        with self._transaction():
            if is_new:
                schema.create(self.connection)
            else:
                schema.renew_views(self.connection)
            self.left_out = adopt(self.connection, scopes, self.contexts)
            self._search.follow(self._streams.follow(scopes, self.contexts, self.left_out))
            self._remove_unneeded(())

    def remove_unfollowed(self, missing: Collection[str]) -> tuple[list[str], list[str]]:
        """
        Remove the rows of unfollowed streams that nobody needs any more.

        Args:
            missing: followed streams that HQ does not seem to have.

        Returns:
            The streams whose rows are gone, and those whose rows still serve.
        """
        with translated(self.path), self._transaction():
            return self._remove_unneeded(missing)

    def state(self, stream: Stream) -> StreamState:
        """What is stored of a stream."""
        with translated(self.path):
            return self._streams.state(stream)

    def apply(
        self,
        stream: Stream,
        *,
        epoch: str,
        position: int,
        digest: str,
        head_seq: int,
        batches: Iterable[RowBatch],
        replace: bool,
        wall_ms: int,
        reason: str = "",
        commits: Sequence[Commit] = (),
    ) -> int:
        """
        Move a stream to `position` in one transaction; returns the rows and tombstones written.

        Args:
            batches: in order of seq, with wire rows `(seq, *keys, *values)`. What lies at or before the present
                position is skipped.
            wall_ms: since 1970.
            replace: the rows that are there go, for this `reason`.
            commits: where the rows came from; unknown if left out.
        """
        context, written = stream.context, 0
        with translated(self.path), self._transaction():
            after = 0 if replace else self._streams.state(stream).position
            if position < after:
                raise ValueError(f"{stream} cannot go back from {after} to {position}")
            if context is PRODUCT:
                self._search.begin(stream)
            if replace:
                self._remove_rows(stream)
                self._streams.rebuilt(stream, reason, wall_ms)
            for rows, deleted, *held in batches:
                written += self._write(context, stream.scope, rows, deleted, after)
                self._quarantine.settle(stream, rows, deleted, held[0] if held else (), after, wall_ms)
            self._streams.moved(stream, epoch, position, digest, head_seq, wall_ms)
            unknown = Commit(CATCH_UP, 1, position, epoch, digest, None, wall_ms)
            self._provenance.record(str(stream), commits or [unknown], after, wall_ms)
        self._quarantine.committed()
        return written

    def note(
        self, stream: Stream, *, state: str, head_seq: int, as_of_ms: int | None, refusal: MessageRefusal | None = None
    ) -> None:
        """Write down what readers may know of a stream between two commits."""
        with translated(self.path):
            self._streams.note(stream, state, head_seq, as_of_ms, refusal)

    def heartbeat(
        self,
        *,
        store_id: str,
        pid: int | None,
        connected: bool,
        started_at_ms: int,
        counters: Mapping[str, int],
        wall_ms: int,
    ) -> None:
        """Write down that the daemon lives (or, with pid None, that it stopped)."""
        with translated(self.path):
            self.connection.execute(
                "INSERT OR REPLACE INTO daemon(id, store_id, pid, connected, started_at_ms, seen_at_ms, counters)"
                " VALUES(1, ?, ?, ?, ?, ?, ?)",
                (store_id, pid, int(connected), started_at_ms, wall_ms, json.dumps(dict(counters))),
            )

    def set_rebuild_due(self, stream: Stream, reason: str) -> None:
        """Write down that the stream is to be rebuilt, so that a crash does not forget it."""
        with translated(self.path):
            self._streams.set_rebuild_due(stream, reason)

    def set_verified(self, stream: Stream, *, ok: bool, at_ms: int) -> None:
        """Write down what a scan of the stream's rows found."""
        with translated(self.path):
            self._streams.set_verified(stream, ok=ok, at_ms=at_ms)

    def quarantined(self, stream: Stream) -> int:
        """How many entities' newest versions are held."""
        return len(self._quarantine.known(stream))

    def wal_bytes(self) -> int:
        try:
            return self.path.with_name(self.path.name + "-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def checkpoint(self, *, truncate: bool = False) -> None:
        """Move the log into the file as far as readers let it, without waiting for them."""
        with translated(self.path):
            self.connection.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if truncate else 'PASSIVE'})").fetchall()

    def close_for_readers(self) -> None:
        """Leave a file that others can read: the connection stays open, the process ends by `os._exit`.

        Closing would remove -wal and -shm, and a till that may not write the directory could not open the file.
        """
        with translated(self.path):
            self.connection.execute(f"PRAGMA busy_timeout={CLOSING_BUSY_TIMEOUT_MS}")
        self.checkpoint(truncate=True)

    def is_search_ready(self) -> bool:
        """Whether the search index has every row."""
        return self._search.is_ready()

    def check_search(self) -> bool:
        """Prove the search index; one that drifted will be rebuilt. False if so."""
        with translated(self.path), self._transaction():
            drifted = self._search.has_drifted()
            if drifted:
                self._search.give_up()
        return not drifted

    def feed_search(self) -> int:
        """Bring the search index nearer to the rows, in a transaction of its own; returns the rows taken in."""
        with translated(self.path), self._transaction():
            return self._search.feed()

    def drop_caches(self) -> None:
        """Free what a large transaction left in memory."""
        with translated(self.path):
            self.connection.execute("PRAGMA shrink_memory")

    def _write(self, context: Context, scope: str, rows: Sequence[Row], deleted: Sequence[Row], after: int) -> int:
        rows, deleted = _newest(context, rows, deleted, after)
        skus = [cast(str, r[1]) for r in (*rows, *deleted)] if context is PRODUCT else []
        if skus:
            self._search.keep_indexed(scope, skus)
        write_rows(self.connection, context, scope, rows, deleted)
        if skus:
            self._search.note_new(scope, skus)
        return len(rows) + len(deleted)

    def _remove_unneeded(self, missing: Collection[str]) -> tuple[list[str], list[str]]:
        gone, kept = self._streams.unneeded(missing)
        for name in gone:
            stream = Stream.parse(name, self._streams.known)
            self._remove_rows(stream)
            self._streams.forget(stream)
        return gone, kept

    def _remove_rows(self, stream: Stream) -> None:
        """Remove a stream's rows and what is known of them."""
        if stream.context is PRODUCT:
            self._search.give_up()
        self._provenance.forget(str(stream))
        self._quarantine.empty(stream)
        forget_shape(self.connection, stream)
        remove_rows(self.connection, stream.context, stream.scope)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with transaction(self.connection):
                yield
        except BaseException:
            self._quarantine.rolled_back()
            raise


def write_rows(
    db: sqlite3.Connection, context: Context, scope: str, rows: Sequence[Row], deleted: Sequence[Row]
) -> None:
    """Write wire rows `(seq, *keys, *values)` and delete `(seq, *keys)` in one scope."""
    # In the order of the key's index, of which its first part is enough; an entity's versions stay in order of seq.
    by_key = sorted(rows, key=itemgetter(1))
    grouped = len(by_key) - len(by_key) % ROWS_PER_STATEMENT
    for start, stop, size in ((0, grouped, ROWS_PER_STATEMENT), (grouped, len(by_key), 1)):
        groups = (by_key[at : at + size] for at in range(start, stop, size))
        db.executemany(upsert_sql(context, size), ((scope, *chain.from_iterable(group)) for group in groups))
    if deleted:
        db.executemany(_delete_sql(context), [(*row[1:], scope) for row in deleted])


def remove_rows(db: sqlite3.Connection, context: Context, scope: str) -> None:
    """Remove all rows of one scope."""
    db.execute(f"DELETE FROM {context.table} WHERE scope = ?", (scope,))


def forget_daemon(db: sqlite3.Connection) -> None:
    """The file is another machine's, or an earlier time's: no daemon is at work on it."""
    db.execute("UPDATE daemon SET pid = NULL, connected = 0, counters = '{}'")


@lru_cache
def upsert_sql(context: Context, rows: int = 1) -> str:
    """Write `rows` wire rows `(seq, *keys, *values)`, one behind the other; the scope is bound first."""
    width = len(context.columns)
    each = (f"({', '.join(f'?{2 + at + n}' for n in range(width))}, ?1)" for at in range(0, rows * width, width))
    updates = ", ".join(f"{n} = excluded.{n}" for n in ("seq", *context.value_names))
    return (
        f"INSERT INTO {context.table} ({', '.join(context.columns)}, scope) VALUES {', '.join(each)}"
        f" ON CONFLICT ({', '.join(context.key_names)}, scope) DO UPDATE SET {updates}"
    )


@lru_cache
def _delete_sql(context: Context) -> str:
    """Delete by `(*keys, scope)`."""
    where = " AND ".join(f"{n} = ?" for n in context.key_names)
    return f"DELETE FROM {context.table} WHERE {where} AND scope = ?"


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is empty. Raises ReplicaDamaged unless it is, or is a replica of this format."""
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        return True
    ident, version = (connection.execute(f"PRAGMA {p}").fetchone()[0] for p in ("application_id", "user_version"))
    if ident != schema.APPLICATION_ID:
        raise ReplicaDamaged(f"{path} is not a replica", hint="check --db; or move the file away")
    if version != schema.VERSION:
        raise ReplicaDamaged(
            f"{path} is a replica of format {version}; this storenode has format {schema.VERSION}", hint=REPLACED_HINT
        )
    return False


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute(f"PRAGMA journal_size_limit={WAL_KEPT_BYTES_MAX}")
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")


def _newest(
    context: Context, rows: Sequence[Row], deleted: Sequence[Row], after: int
) -> tuple[Sequence[Row], Sequence[Row]]:
    """Leave out what is not behind `after`, and of an entity that is both written and deleted the older state."""
    if after:
        rows = [r for r in rows if cast(int, r[0]) > after]
        deleted = [r for r in deleted if cast(int, r[0]) > after]
    if not deleted:
        return rows, deleted
    width = 1 + len(context.keys)
    gone = {r[1:width]: cast(int, r[0]) for r in deleted}
    kept = {r[1:width]: cast(int, r[0]) for r in rows}
    return (
        [r for r in rows if cast(int, r[0]) > gone.get(r[1:width], 0)],
        [r for r in deleted if cast(int, r[0]) > kept.get(r[1:width], 0)],
    )
