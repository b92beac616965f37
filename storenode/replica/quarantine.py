"""Quarantine: a version of an entity that breaks a rule of its context is held, with the reason, and not served.

Whatever was served before goes on being served; everything else of the stream goes on. A later version, or a
deletion, releases the entity. A held version still counts in the stream's digest, so a scan proves rows and held
versions together. Owned by the writer thread; changes are part of the transaction that moves the position.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import cast

from storelink.contract.contexts import Context, Key, Row
from storelink.contract.rows import Held
from storelink.contract.streams import Stream
from storelink.host.logs import get_logger

log = get_logger()


class Quarantine:
    """The writer's side of the table `quarantine`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._keys: dict[Stream, set[Key]] = {}
        self._told: list[tuple[str, dict[str, object]]] = []

    def empty(self, stream: Stream) -> None:
        """All rows of the stream are about to be replaced, or go."""
        self._keys.pop(stream, None)
        self._db.execute("DELETE FROM quarantine WHERE stream = ?", (str(stream),))
        self._db.execute("UPDATE streams SET quarantined = 0 WHERE stream = ?", (str(stream),))

    def settle(
        self, stream: Stream, rows: Sequence[Row], deleted: Sequence[Row], held: Sequence[Held], after: int, now_ms: int
    ) -> None:
        """Hold what is held at the end of a batch, release what a later version of it frees."""
        keys = self.known(stream)
        if not keys and not held:
            return
        newest = _newest_by_key(stream.context, (*rows, *deleted))
        for each in held:
            if each.seq > max(newest.get(each.key, 0), after):
                newest[each.key] = each.seq
                keys.add(each.key)
                self._db.execute(
                    "INSERT OR REPLACE INTO quarantine(stream, key, seq, row, reason, at_ms) VALUES(?, ?, ?, ?, ?, ?)",
                    (str(stream), json.dumps(each.key), each.seq, each.row, each.reason, now_ms),
                )
                told = {"stream": str(stream), "key": list(each.key), "seq": each.seq, "reason": each.reason[:200]}
                self._told.append(("held", told))
        for key in keys & newest.keys():
            freed = self._db.execute(
                "DELETE FROM quarantine WHERE stream = ? AND key = ? AND seq < ?",
                (str(stream), json.dumps(key), newest[key]),
            ).rowcount
            if freed:
                keys.discard(key)
                self._told.append(("released", {"stream": str(stream), "key": list(key), "seq": newest[key]}))
        self._db.execute(
            "UPDATE streams SET quarantined = (SELECT count(*) FROM quarantine WHERE stream = ?1) WHERE stream = ?1",
            (str(stream),),
        )

    def committed(self) -> None:
        """The transaction stands: say what it held and released."""
        for what, facts in self._told:
            if what == "held":
                log.error("entity.held", **facts)
            else:
                log.info("entity.released", **facts)
        self._told.clear()

    def rolled_back(self) -> None:
        """The transaction does not stand: what is held is in the table."""
        self._keys.clear()
        self._told.clear()

    def known(self, stream: Stream) -> set[Key]:
        """The keys that are held."""
        if stream not in self._keys:
            found = self._db.execute("SELECT key FROM quarantine WHERE stream = ?", (str(stream),))
            self._keys[stream] = {tuple(json.loads(text)) for (text,) in found}
        return self._keys[stream]


def _newest_by_key(context: Context, rows: Sequence[Row]) -> dict[Key, int]:
    newest: dict[Key, int] = {}
    for row in rows:
        key, seq = context.key_of(row), cast(int, row[0])
        newest[key] = max(seq, newest.get(key, 0))
    return newest
