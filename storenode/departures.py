"""Following other scopes without an outage: what is followed no longer goes when what takes its place is here.

A stream that the configuration names no more becomes *departing*: it leaves `streams`, its rows stay, and its scope
ranks below every scope that is followed. Its rows go, in one transaction, when every stream of its context that is
followed is complete. A stream that HQ does not have never will be: it is not waited for once HQ's other streams
of that context are here and the broker has shown no head of it for MISSING_AFTER_MS.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from contract.contexts import CONTEXTS, PRODUCT
from contract.digest import EMPTY
from contract.streams import Stream
from storenode import schema
from storenode.core.following import followed_streams, scope_ranks
from storenode.journal import Journal
from storenode.search import SearchIndex

if TYPE_CHECKING:
    from storenode.follower import Follower
    from storenode.replica import Replica

log = structlog.get_logger()

MISSING_AFTER_MS = 60_000
"""Six times as long as a follower waits for a head before it asks again."""

LOOK_EVERY_MS = 200

_KEPT = "stream, epoch, position, digest, head_seq"


class Following:
    """What a replica follows, in its file; every method within the caller's transaction, on the writer's connection."""

    def __init__(self, connection: sqlite3.Connection, search: SearchIndex, journal: Journal) -> None:
        self._db, self._search, self._journal = connection, search, journal

    def follow(self, scopes: Sequence[str]) -> None:
        """Write down what is followed; what is not any more departs, and what departed and is back goes on."""
        db, streams = self._db, followed_streams(scopes)
        names = [str(s) for s in streams]
        ranks_before = dict(db.execute("SELECT scope, rank FROM scopes WHERE rank < ?", (schema.OWN_RANK,)))
        marks = ", ".join("?" * len(names))
        db.execute(f"INSERT INTO streams({_KEPT}) SELECT {_KEPT} FROM departing WHERE stream IN ({marks})", names)
        db.execute(f"DELETE FROM departing WHERE stream IN ({marks})", names)
        db.execute(f"INSERT INTO departing({_KEPT}) SELECT {_KEPT} FROM streams WHERE stream NOT IN ({marks})", names)
        db.execute(f"DELETE FROM streams WHERE stream NOT IN ({marks})", names)
        db.executemany("INSERT OR IGNORE INTO streams(stream, digest) VALUES(?, ?)", [(name, EMPTY) for name in names])
        self._search.follow(streams)
        self._rank(scope_ranks(scopes), ranks_before)
        self.let_go(())

    def let_go(self, missing: Collection[str]) -> list[str]:
        """Remove the departing rows that are not needed any more; returns the streams they were of."""
        followed: dict[str, list[bool]] = {}
        for name, epoch in self._db.execute("SELECT stream, epoch FROM streams"):
            if epoch is not None or name not in missing:
                followed.setdefault(name.partition("/")[0], []).append(epoch is not None)
            else:
                followed.setdefault(name.partition("/")[0], [])
        gone = []
        for name, epoch in self._db.execute("SELECT stream, epoch FROM departing").fetchall():
            found = followed.get(name.partition("/")[0])
            if epoch is None or found is None or (found and all(found)):
                self._remove(name)
                gone.append(name)
        return gone

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
        if context in CONTEXTS:
            self._db.execute(f"DELETE FROM {CONTEXTS[context].table} WHERE scope = ?", (scope,))
        self._db.execute("DELETE FROM quarantine WHERE stream = ?", (name,))
        self._journal.forget(name)
        self._db.execute("DELETE FROM departing WHERE stream = ?", (name,))
        self._db.execute(
            "DELETE FROM scopes WHERE scope = ?1 AND rank < 0"
            " AND NOT EXISTS (SELECT 1 FROM departing WHERE stream LIKE '%/' || ?1)",
            (scope,),
        )


class Departures:
    """Lets departing streams go while the daemon runs; owned by the writer thread. It has no clock."""

    def __init__(self, replica: Replica, followers: Mapping[Stream, Follower]) -> None:
        self._replica, self._followers = replica, followers
        self._waiting = bool(kept := replica.departing())
        self._headless: dict[Stream, int] = {}
        self._look_ms = 0
        for name in kept:
            log.info("stream.kept", stream=name)

    def step(self, now_ms: int, *, connected: bool) -> None:
        """Look whether what takes their place is here."""
        if not self._waiting or now_ms < self._look_ms:
            return
        self._look_ms = now_ms + LOOK_EVERY_MS
        self._watch(now_ms, connected=connected)
        missing = [str(s) for s, since_ms in self._headless.items() if now_ms - since_ms >= MISSING_AFTER_MS]
        for name in self._replica.let_go(missing):
            log.info("stream.removed", stream=name)
        self._waiting = bool(self._replica.departing())

    def _watch(self, now_ms: int, *, connected: bool) -> None:
        """Remember since when which stream has been asked for in vain."""
        for stream, follower in self._followers.items():
            if connected and follower.is_headless:
                self._headless.setdefault(stream, now_ms)
            else:
                self._headless.pop(stream, None)


def sweep_spools(root: Path, followed: Collection[Stream]) -> None:
    """Remove what was fetched for streams that are not followed any more; `root` has CONTEXT/SCOPE below it."""
    for place in root.glob("*/*"):
        with suppress(OSError):
            if f"{place.parent.name}/{place.name}" not in {str(s) for s in followed}:
                shutil.rmtree(place)
