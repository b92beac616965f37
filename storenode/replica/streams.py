"""Which streams a replica follows and how far each is: the one writer of `streams`, `unfollowed_streams`, `scopes`.

A stream that the configuration names no more becomes *unfollowed*: it leaves `streams`, its rows stay, and its scope
ranks below every scope that is followed. Its rows go, in one transaction, when every followed stream of its context is
complete (storenode/follow/unfollow.py). So other scopes never leave a store without prices.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from storelink.contract.contexts import BUILT_IN, Contexts
from storelink.contract.rows import EMPTY
from storelink.contract.status import MessageRefusal
from storelink.contract.streams import Stream
from storenode.core.scopes import followed_streams, scope_ranks
from storenode.replica.schema import OWN_RANK

_KEPT = "stream, epoch, position, digest, head_seq, rebuild_due, quarantined"
"""What an unfollowed stream keeps."""

_BEGUN = "WHERE epoch IS NOT NULL AND stream LIKE ? ESCAPE '!'"
"""Streams of a context (`_of_context`) that have rows of some epoch."""


@dataclass(frozen=True, slots=True)
class StreamState:
    """What is stored of a stream; epoch None: never bootstrapped. `rebuild_due`: why it is to be rebuilt, if it is."""

    epoch: str | None
    position: int
    digest: str
    rebuild_due: str | None = None
    refusal: MessageRefusal | None = None


class Streams:
    """Owned by the writer thread; a caller that changes rows too calls within the same transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self.known: Contexts = BUILT_IN

    def follow(self, scopes: Sequence[str], contexts: Contexts, left_out: Collection[str]) -> tuple[Stream, ...]:
        """
        Write down what is followed; what is not any more becomes unfollowed, and what is again goes on.

        Args:
            left_out: contexts whose declaration does not fit or is gone; what there is of them stays as it is.
        """
        db, self.known = self._db, Contexts(c for c in contexts.values() if c.name not in left_out)
        streams = followed_streams(scopes, self.known)
        names = [str(s) for s in streams]
        ranks_before = dict(db.execute("SELECT scope, rank FROM scopes WHERE rank < ?", (OWN_RANK,)))
        marks = ", ".join("?" * len(names))
        db.execute(
            f"INSERT INTO streams({_KEPT}) SELECT {_KEPT} FROM unfollowed_streams WHERE stream IN ({marks})", names
        )
        db.execute(f"DELETE FROM unfollowed_streams WHERE stream IN ({marks})", names)
        there = [name for (name,) in db.execute("SELECT stream FROM streams")]
        gone = [(name,) for name in there if name not in names and name.partition("/")[0] in self.known]
        db.executemany(f"INSERT INTO unfollowed_streams({_KEPT}) SELECT {_KEPT} FROM streams WHERE stream = ?", gone)
        db.executemany("DELETE FROM streams WHERE stream = ?", gone)
        db.executemany("INSERT OR IGNORE INTO streams(stream, digest) VALUES(?, ?)", [(name, EMPTY) for name in names])
        self._rank(scope_ranks(scopes), ranks_before)
        return streams

    def unneeded(self, missing: Collection[str]) -> tuple[list[str], list[str]]:
        """
        The unfollowed streams whose rows nobody needs any more, and those whose rows still serve.

        Args:
            missing: followed streams that HQ does not seem to have.
        """
        followed: dict[str, list[bool]] = {}
        for name, epoch in self._db.execute("SELECT stream, epoch FROM streams"):
            complete = followed.setdefault(name.partition("/")[0], [])
            if epoch is not None or name not in missing:
                complete.append(epoch is not None)
        gone, kept = [], []
        for name, epoch in self._db.execute("SELECT stream, epoch FROM unfollowed_streams ORDER BY 1"):
            context = name.partition("/")[0]
            found = followed.get(context)
            if context in self.known and (epoch is None or found is None or (found and all(found))):
                gone.append(name)
            else:
                kept.append(name)
        return gone, kept

    def forget(self, stream: Stream) -> None:
        """An unfollowed stream's rows have gone."""
        self._db.execute("DELETE FROM unfollowed_streams WHERE stream = ?", (str(stream),))
        self._db.execute(
            "DELETE FROM scopes WHERE scope = ?1 AND rank < 0"
            " AND NOT EXISTS (SELECT 1 FROM unfollowed_streams WHERE stream LIKE '%/' || ?1)",
            (stream.scope,),
        )

    def state(self, stream: Stream) -> StreamState:
        row = self._db.execute(
            "SELECT epoch, position, digest, rebuild_due, refusal FROM streams WHERE stream = ?", (str(stream),)
        ).fetchone()
        epoch, position, digest, rebuild_due, refusal = row or (None, 0, None, None, None)
        return StreamState(epoch, position, digest or EMPTY, rebuild_due, MessageRefusal.from_json(refusal))

    def rebuilt(self, stream: Stream, reason: str, wall_ms: int) -> None:
        """All rows are about to be replaced; of the first that ever came nothing is noted."""
        self._db.execute(
            "UPDATE streams SET verified_at_ms = NULL, verified_ok = NULL, rebuild_due = NULL,"
            " rebuilt_at_ms = iif(epoch IS NULL, NULL, ?), rebuild_reason = iif(epoch IS NULL, NULL, ?)"
            " WHERE stream = ?",
            (wall_ms, reason, str(stream)),
        )

    def moved(self, stream: Stream, epoch: str, position: int, digest: str, head_seq: int, wall_ms: int) -> None:
        """The rows are those of another position now; at the head the stream is live."""
        self._db.execute(
            "UPDATE streams SET epoch = ?, position = ?, digest = ?, head_seq = ? WHERE stream = ?",
            (epoch, position, digest, head_seq, str(stream)),
        )
        if position >= head_seq:
            self._db.execute("UPDATE streams SET state = 'live', as_of_ms = ? WHERE stream = ?", (wall_ms, str(stream)))

    def note(
        self, stream: Stream, state: str, head_seq: int, as_of_ms: int | None, refusal: MessageRefusal | None
    ) -> None:
        self._db.execute(
            "UPDATE streams SET state = ?, head_seq = ?, as_of_ms = coalesce(?, as_of_ms), refusal = ?"
            " WHERE stream = ?",
            (state, head_seq, as_of_ms, refusal and refusal.as_json(), str(stream)),
        )

    def set_rebuild_due(self, stream: Stream, reason: str) -> None:
        self._db.execute("UPDATE streams SET rebuild_due = ? WHERE stream = ?", (reason, str(stream)))

    def set_verified(self, stream: Stream, *, ok: bool, at_ms: int) -> None:
        self._db.execute(
            "UPDATE streams SET verified_at_ms = ?, verified_ok = ? WHERE stream = ?", (at_ms, int(ok), str(stream))
        )

    def set_quarantined(self, stream: Stream, entities: int) -> None:
        self._db.execute("UPDATE streams SET quarantined = ? WHERE stream = ?", (entities, str(stream)))

    def _rank(self, ranks: Mapping[str, int], before: Mapping[str, int]) -> None:
        """Unfollowed scopes rank below those followed, in the order that they had."""
        names = [name.partition("/")[2] for (name,) in self._db.execute("SELECT stream FROM unfollowed_streams")]
        leaving = sorted(set(names) - ranks.keys(), key=lambda scope: before.get(scope, 0), reverse=True)
        below = {scope: -1 - place for place, scope in enumerate(leaving)}
        self._db.execute("DELETE FROM scopes WHERE rank < ?", (OWN_RANK,))
        self._db.executemany("INSERT INTO scopes(scope, rank) VALUES(?, ?)", list((below | dict(ranks)).items()))


def rank_own_scope(db: sqlite3.Connection, scope: str | None) -> None:
    """Have the scope of the store's own prices win over all; None: there is none."""
    db.execute("DELETE FROM scopes WHERE rank >= ?", (OWN_RANK,))
    if scope is not None:
        db.execute("INSERT INTO scopes(scope, rank) VALUES(?, ?)", (scope, OWN_RANK))


def has_rows(db: sqlite3.Connection, context: str) -> bool:
    """Whether a followed stream of a context has, or had, rows."""
    sql = f"SELECT 1 FROM streams {_BEGUN} AND position > 0"
    return db.execute(sql, (_of_context(context),)).fetchone() is not None


def suspend(db: sqlite3.Connection, contexts: Iterable[str]) -> None:
    """Nobody follows the streams of these contexts: they are offline."""
    statement = f"UPDATE streams SET state = 'offline' {_BEGUN}"
    db.executemany(statement, [(_of_context(context),) for context in contexts])


def begun_streams(db: sqlite3.Connection, context: str) -> list[str]:
    """The streams of a context that have been complete once, unfollowed ones too."""
    return [
        name
        for table in ("streams", "unfollowed_streams")
        for (name,) in db.execute(f"SELECT stream FROM {table} {_BEGUN}", (_of_context(context),))
    ]


def have_rebuilt(db: sqlite3.Connection, names: Iterable[str], reason: str) -> None:
    """A rebuild of these streams is due, unless one is for another reason."""
    bound = [(reason, name) for name in names]
    for table in ("streams", "unfollowed_streams"):
        db.executemany(f"UPDATE {table} SET rebuild_due = coalesce(rebuild_due, ?) WHERE stream = ?", bound)


def _of_context(context: str) -> str:
    """A LIKE pattern for a context's streams."""
    return context.replace("_", "!_") + "/%"
