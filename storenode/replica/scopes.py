"""What a replica follows, in its file, and how that changes without an outage.

A stream that the configuration names no more becomes *departing*: it leaves `streams`, its rows stay, and its scope
ranks below every scope that is followed. Its rows go, in one transaction, when every stream of its context that is
followed is complete: storenode/follow/unfollow.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence

from storelink.contract.contexts import BUILT_IN, PRODUCT, Contexts
from storelink.contract.digest import EMPTY
from storenode.core.scopes import followed_streams, scope_ranks
from storenode.replica import schema
from storenode.replica.provenance import Provenance
from storenode.replica.search_index import SearchIndex

_KEPT = "stream, epoch, position, digest, head_seq, doubt, quarantined"


class FollowedScopes:
    """Every method within the caller's transaction, on the writer's connection."""

    def __init__(self, connection: sqlite3.Connection, search: SearchIndex, journal: Provenance) -> None:
        self._db, self._search, self._journal = connection, search, journal
        self._known: Contexts = BUILT_IN

    def follow(self, scopes: Sequence[str], contexts: Contexts, left_out: Collection[str]) -> None:
        """
        Write down what is followed; what is not any more departs, and what departed and is back goes on.

        Args:
            left_out: contexts whose declaration does not fit or is gone; what there is of them stays as it is.
        """
        db, self._known = self._db, Contexts(c for c in contexts.values() if c.name not in left_out)
        streams = followed_streams(scopes, self._known)
        names = [str(s) for s in streams]
        ranks_before = dict(db.execute("SELECT scope, rank FROM scopes WHERE rank < ?", (schema.OWN_RANK,)))
        marks = ", ".join("?" * len(names))
        db.execute(f"INSERT INTO streams({_KEPT}) SELECT {_KEPT} FROM departing WHERE stream IN ({marks})", names)
        db.execute(f"DELETE FROM departing WHERE stream IN ({marks})", names)
        there = [name for (name,) in db.execute("SELECT stream FROM streams")]
        gone = [(name,) for name in there if name not in names and name.partition("/")[0] in self._known]
        db.executemany(f"INSERT INTO departing({_KEPT}) SELECT {_KEPT} FROM streams WHERE stream = ?", gone)
        db.executemany("DELETE FROM streams WHERE stream = ?", gone)
        db.executemany("INSERT OR IGNORE INTO streams(stream, digest) VALUES(?, ?)", [(name, EMPTY) for name in names])
        self._search.follow(streams)
        self._rank(scope_ranks(scopes), ranks_before)
        self.let_go(())

    def let_go(self, missing: Collection[str]) -> tuple[list[str], list[str]]:
        """
        Remove the rows of departing streams that nobody needs any more.

        Args:
            missing: followed streams that HQ does not seem to have.

        Returns:
            the streams whose rows are gone, and those that still depart.
        """
        followed: dict[str, list[bool]] = {}
        for name, epoch in self._db.execute("SELECT stream, epoch FROM streams"):
            if epoch is not None or name not in missing:
                followed.setdefault(name.partition("/")[0], []).append(epoch is not None)
            else:
                followed.setdefault(name.partition("/")[0], [])
        gone, left = [], []
        for name, epoch in self._db.execute("SELECT stream, epoch FROM departing ORDER BY 1").fetchall():
            found = followed.get(name.partition("/")[0])
            if name.partition("/")[0] not in self._known:
                left.append(name)
            elif epoch is None or found is None or (found and all(found)):
                self._remove(name)
                gone.append(name)
            else:
                left.append(name)
        return gone, left

    def _rank(self, ranks: Mapping[str, int], before: Mapping[str, int]) -> None:
        """Departing scopes rank below those followed, in the order that they had."""
        names = [name.partition("/")[2] for (name,) in self._db.execute("SELECT stream FROM departing")]
        leaving = sorted(set(names) - ranks.keys(), key=lambda scope: before.get(scope, 0), reverse=True)
        below = {scope: -1 - place for place, scope in enumerate(leaving)}
        self._db.execute("DELETE FROM scopes WHERE rank < ?", (schema.OWN_RANK,))
        self._db.executemany("INSERT INTO scopes(scope, rank) VALUES(?, ?)", list((below | dict(ranks)).items()))

    def _remove(self, name: str) -> None:
        context, _, scope = name.partition("/")
        if context == PRODUCT.name:
            self._search.give_up()
        self._db.execute(f"DELETE FROM {self._known[context].table} WHERE scope = ?", (scope,))
        self._db.execute("DELETE FROM quarantine WHERE stream = ?", (name,))
        self._journal.forget(name)
        self._db.execute("DELETE FROM departing WHERE stream = ?", (name,))
        self._db.execute(
            "DELETE FROM scopes WHERE scope = ?1 AND rank < 0"
            " AND NOT EXISTS (SELECT 1 FROM departing WHERE stream LIKE '%/' || ?1)",
            (scope,),
        )
