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
from storenode.replica.streams import Streams

log = get_logger()


class Quarantine:
    """The one writer of the table `quarantine`."""

    def __init__(self, connection: sqlite3.Connection, streams: Streams) -> None:
        self._db, self._streams = connection, streams
        self._keys: dict[Stream, set[Key]] = {}
        self._to_log: list[tuple[str, dict[str, object]]] = []

    def empty(self, stream: Stream) -> None:
        """All rows of the stream are about to be replaced, or go."""
        self._keys.pop(stream, None)
        self._db.execute("DELETE FROM quarantine WHERE stream = ?", (str(stream),))
        self._streams.set_quarantined(stream, 0)

    def settle(
        self,
        stream: Stream,
        rows: Sequence[Row],
        deleted: Sequence[Row],
        held: Sequence[Held],
        after: int,
        wall_ms: int,
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
                    (str(stream), json.dumps(each.key), each.seq, each.row, each.reason, wall_ms),
                )
                values = {"stream": str(stream), "key": list(each.key), "seq": each.seq, "reason": each.reason[:200]}
                self._to_log.append(("held", values))
        for key in keys & newest.keys():
            freed = self._db.execute(
                "DELETE FROM quarantine WHERE stream = ? AND key = ? AND seq < ?",
                (str(stream), json.dumps(key), newest[key]),
            ).rowcount
            if freed:
                keys.discard(key)
                self._to_log.append(("released", {"stream": str(stream), "key": list(key), "seq": newest[key]}))
        self._streams.set_quarantined(stream, len(keys))

    def committed(self) -> None:
        """The transaction has been committed: log what it held and released."""
        for what, values in self._to_log:
            if what == "held":
                log.error("entity.held", **values)
            else:
                log.info("entity.released", **values)
        self._to_log.clear()

    def rolled_back(self) -> None:
        """The transaction was rolled back: what is held is in the table."""
        self._keys.clear()
        self._to_log.clear()

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
