"""The replica's one writing connection: position and rows change in one transaction, whole change sets only.

Owned by the writer thread. Everyone else opens the file read-only. `synchronous=NORMAL`: what a power cut
takes back is fetched again. A crash leaves the last committed state; nothing here needs repair afterwards.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import cast

from storelink.contract.contexts import PRODUCT, Context, Contexts, Row
from storelink.contract.digest import EMPTY
from storelink.contract.refusal import MessageRefusal
from storelink.contract.rows import Held
from storelink.contract.streams import Stream
from storelink.host.sqlite import transaction
from storenode.errors import ReplicaDamaged
from storenode.replica import schema
from storenode.replica.connection import translated
from storenode.replica.contexts import adopt
from storenode.replica.provenance import CATCH_UP, Commit, Provenance
from storenode.replica.quarantine import Quarantine
from storenode.replica.scopes import FollowedScopes
from storenode.replica.search_index import SearchIndex

BUSY_TIMEOUT_S = 5.0
CACHE_KIB = 32_768
WAL_KEPT_BYTES_MAX = 4 * 1024 * 1024
"""What the log's file is cut back to when it starts over after a large transaction."""

ROWS_PER_STATEMENT = 32
"""Rows that one INSERT writes: a fifth faster than one each."""

CLOSING_BUSY_TIMEOUT_MS = 200
"""A clean stop does not wait for readers."""

Batch = tuple[Sequence[Row], Sequence[Row]] | tuple[Sequence[Row], Sequence[Row], Sequence[Held]]
"""As `storenode.follow.spool.Batch`; nothing is held where the third part is left out."""


@dataclass(frozen=True, slots=True)
class StreamState:
    """Where the replica stands in a stream; epoch None: never bootstrapped. `doubt`: why it is to be rebuilt."""

    epoch: str | None
    position: int
    digest: str
    doubt: str | None = None
    refusal: MessageRefusal | None = None


class Replica:
    """The writer of one replica file; makes it, and lets go of what the configuration no longer follows.

    `scopes`: as configured (`zone-west`, `price/zone-west`), from the least to the most specific.
    `contexts`: all that this process knows.
    `left_out`: the contexts that cannot be followed here, each with the reason.
    """

    def __init__(self, path: Path, scopes: Sequence[str], contexts: Contexts) -> None:
        self.path, self.contexts = path, contexts
        with translated(path):
            # Autocheckpoint off: only `checkpoint` moves the log, so a commit never waits for it.
            self.connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_S)
            self._search = SearchIndex(self.connection)
            self._journal = Provenance(self.connection)
            self._following = FollowedScopes(self.connection, self._search, self._journal)
            self._quarantine = Quarantine(self.connection)
            try:
                self._open(scopes)
            except BaseException:
                self.connection.close()
                raise

    def _open(self, scopes: Sequence[str]) -> None:
        db = self.connection
        ident, version = (db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("application_id", "user_version"))
        made = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if made and (ident != schema.APPLICATION_ID or not 1 <= version <= schema.VERSION):
            raise ReplicaDamaged(
                f"{self.path} is not a replica of this version", hint="check --db; or move the file away"
            )
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA wal_autocheckpoint=0")
        db.execute(f"PRAGMA journal_size_limit={WAL_KEPT_BYTES_MAX}")
        db.execute("PRAGMA temp_store=MEMORY")
        db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        with self._transaction():
            if not made:
                schema.create(db)
            elif version < schema.VERSION:
                schema.upgrade(db, version)
            else:
                schema.renew_views(db)
            self.left_out = adopt(db, scopes, self.contexts)
            self._following.follow(scopes, self.contexts, self.left_out)

    def let_go(self, missing: Collection[str]) -> tuple[list[str], list[str]]:
        """Remove the rows of departing streams that are not needed; see storenode/replica/scopes.py."""
        with translated(self.path), self._transaction():
            return self._following.let_go(missing)

    def state(self, stream: Stream) -> StreamState:
        with translated(self.path):
            row = self.connection.execute(
                "SELECT epoch, position, digest, doubt, refusal FROM streams WHERE stream = ?", (str(stream),)
            ).fetchone()
        epoch, position, digest, doubt, refusal = row or (None, 0, None, None, None)
        return StreamState(epoch, position, digest or EMPTY, doubt, MessageRefusal.from_json(refusal))

    def apply(
        self,
        stream: Stream,
        *,
        epoch: str,
        position: int,
        digest: str,
        head_seq: int,
        batches: Iterable[Batch],
        replace: bool,
        now_ms: int,
        reason: str = "",
        commits: Sequence[Commit] = (),
    ) -> int:
        """
        Move a stream to `position` in one transaction; returns the rows and tombstones written.

        Args:
            batches: wire rows `(seq, *keys, *values)` and tombstones `(seq, *keys)`, and what is held, if
                anything; batches in order of seq.
                What lies at or before the present position is skipped.
            replace: the rows there are go, for this `reason`.
            commits: what is written down of where the rows came from; one of unknown origin if left out.
        """
        context, written = stream.context, 0
        with translated(self.path), self._transaction():
            after = 0 if replace else self.state(stream).position
            if position < after:
                raise ValueError(f"{stream} cannot go back from {after} to {position}")
            if context is PRODUCT:
                self._search.begin(stream)
            if replace:
                if context is PRODUCT:
                    self._search.give_up()
                self._journal.forget(str(stream))
                self._quarantine.empty(stream)
                self.connection.execute(f"DELETE FROM {context.table} WHERE scope = ?", (stream.scope,))
                self.connection.execute(
                    "UPDATE streams SET verified_at_ms = NULL, verified_ok = NULL, doubt = NULL,"
                    " rebuilt_at_ms = iif(epoch IS NULL, NULL, ?), rebuild_reason = iif(epoch IS NULL, NULL, ?)"
                    " WHERE stream = ?",
                    (now_ms, reason, str(stream)),
                )
            for rows, deleted, *held in batches:
                written += self._write(context, stream.scope, rows, deleted, after)
                self._quarantine.settle(stream, rows, deleted, held[0] if held else (), after, now_ms)
            self.connection.execute(
                "UPDATE streams SET epoch = ?, position = ?, digest = ?, head_seq = ? WHERE stream = ?",
                (epoch, position, digest, head_seq, str(stream)),
            )
            unknown = Commit(CATCH_UP, 1, position, epoch, digest, None, now_ms)
            self._journal.record(str(stream), commits or [unknown], after, now_ms)
            if position >= head_seq:
                self.connection.execute(
                    "UPDATE streams SET state = 'live', as_of_ms = ? WHERE stream = ?", (now_ms, str(stream))
                )
        self._quarantine.committed()
        return written

    def note(
        self, stream: Stream, *, state: str, head_seq: int, as_of_ms: int | None, refusal: MessageRefusal | None = None
    ) -> None:
        """Write down what readers may know of a stream between two commits."""
        with translated(self.path):
            self.connection.execute(
                "UPDATE streams SET state = ?, head_seq = ?, as_of_ms = coalesce(?, as_of_ms), refusal = ?"
                " WHERE stream = ?",
                (state, head_seq, as_of_ms, refusal and refusal.as_json(), str(stream)),
            )

    def heartbeat(
        self,
        *,
        store_id: str,
        pid: int | None,
        connected: bool,
        started_at_ms: int,
        counters: Mapping[str, int],
        now_ms: int,
    ) -> None:
        """Write down that the daemon lives (or, with pid None, that it stopped)."""
        with translated(self.path):
            self.connection.execute(
                "INSERT OR REPLACE INTO daemon(id, store_id, pid, connected, started_at_ms, seen_at_ms, counters)"
                " VALUES(1, ?, ?, ?, ?, ?, ?)",
                (store_id, pid, int(connected), started_at_ms, now_ms, json.dumps(dict(counters))),
            )

    def doubt(self, stream: Stream, reason: str) -> None:
        """Write down that the stream is to be rebuilt, so that a crash does not forget it."""
        with translated(self.path):
            self.connection.execute("UPDATE streams SET doubt = ? WHERE stream = ?", (reason, str(stream)))

    def set_verified(self, stream: Stream, *, ok: bool, at_ms: int) -> None:
        with translated(self.path):
            self.connection.execute(
                "UPDATE streams SET verified_at_ms = ?, verified_ok = ? WHERE stream = ?", (at_ms, int(ok), str(stream))
            )

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
            self._search.put_aside(scope, skus)
        # In the order of the key's index, of which its first part is enough; an entity's versions stay in order of seq.
        by_key = sorted(rows, key=itemgetter(1))
        whole = len(by_key) - len(by_key) % ROWS_PER_STATEMENT
        for start, stop, size in ((0, whole, ROWS_PER_STATEMENT), (whole, len(by_key), 1)):
            groups = (by_key[at : at + size] for at in range(start, stop, size))
            self.connection.executemany(
                schema.upsert_sql(context, size), ((scope, *chain.from_iterable(group)) for group in groups)
            )
        if deleted:
            self.connection.executemany(schema.delete_sql(context), [(*row[1:], scope) for row in deleted])
        if skus:
            self._search.admit(scope, skus)
        return len(rows) + len(deleted)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with transaction(self.connection):
                yield
        except BaseException:
            self._quarantine.rolled_back()
            raise


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
