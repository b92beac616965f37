"""The search index over products: a read model of its own, fed in sets behind the rows, with its own position.

`product_search` is an FTS5 index whose content is the table `products`. While rows change, only what the index
holds of them is kept (`search_pending`, in the rows' own transaction); `feed` brings the index up to date in
transactions of its own, when the writer has nothing else to do. An index that is too far behind is rebuilt
instead, which is what happens after a bootstrap. Until then a search finds products by what they were called.

`read_models` says for each stream up to which position the index has it. States: `ready`; `behind`: rows wait in
`search_pending`; `stale`: it will be rebuilt.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from storelink.contract.contexts import PRODUCT
from storelink.contract.streams import Stream
from storelink.host.sqlite import database

NAME = "product_search"
INDEXED = ("sku", "gtin", "name", "description", "brand", "department", "category")
REBUILD_SHARE = 8
"""An index that lacks more than one row in so many is rebuilt: cheaper than taking each out and in again."""

PENDING_ROWS_MIN = 2_000
"""Up to so many rows a feed is always the shorter way."""

FEED_ROWS = 5_000
"""Rows of one transaction of a feed; live changes go between two of them."""

_COLUMNS = ", ".join(INDEXED)
_KEYED = "SELECT rowid FROM products WHERE scope = ? AND sku IN (SELECT value FROM json_each(?))"
_encode = msgspec.json.Encoder().encode


def create(connection: sqlite3.Connection) -> None:
    """Make the index and what belongs to it; the caller's transaction holds them."""
    db = database(connection)
    connection.execute(
        f"CREATE VIRTUAL TABLE {NAME} USING fts5(scope UNINDEXED, {_COLUMNS}, content='{PRODUCT.table}',"
        ' tokenize="unicode61 remove_diacritics 2")'
    )
    # `held`: the index has this row, with these texts; a delete from FTS5 must name them.
    db.table("search_pending").create({"row": int, "held": int} | dict.fromkeys(("scope", *INDEXED), str), pk="row")
    db.table("read_models").create(
        {"name": str, "stream": str, "position": int, "state": str},
        pk=("name", "stream"),
        defaults={"position": 0, "state": "stale"},
    )


class SearchIndex:
    """The one writer of these tables; owned by the writer thread. A crash loses nothing: it is all in the file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._room: int | None = None

    def follow(self, streams: Sequence[Stream]) -> None:
        """Keep one position for each product stream; call within a transaction."""
        names = [str(s) for s in streams if s.context is PRODUCT]
        self._db.execute(f"DELETE FROM read_models WHERE stream NOT IN ({', '.join('?' * len(names))})", names)
        self._db.executemany("INSERT OR IGNORE INTO read_models(name, stream) VALUES(?, ?)", [(NAME, n) for n in names])

    def begin(self, stream: Stream) -> None:
        """Rows of a product stream are about to change, in the caller's transaction."""
        self._room = None
        if not self._stale():
            (rows,) = self._db.execute(f"SELECT coalesce(max(rowid), 0) FROM {PRODUCT.table}").fetchone()
            (waiting,) = self._db.execute("SELECT count(*) FROM search_pending").fetchone()
            self._room = max(PENDING_ROWS_MIN, rows // REBUILD_SHARE) - waiting
            self._db.execute(
                "UPDATE read_models SET state = 'behind' WHERE name = ? AND stream = ?", (NAME, str(stream))
            )

    def keep_indexed(self, scope: str, skus: Sequence[str]) -> None:
        """Keep what the index holds of these products; call before they change."""
        if self._room is None:
            return
        self._room -= len(skus)
        if self._room < 0:
            self.give_up()
            return
        self._db.execute(
            f"INSERT OR IGNORE INTO search_pending(row, held, scope, {_COLUMNS})"
            f" SELECT rowid, 1, scope, {_COLUMNS} FROM products WHERE rowid IN ({_KEYED})",
            (scope, _encode(skus).decode()),
        )

    def note_new(self, scope: str, skus: Sequence[str]) -> None:
        """Remember those of these products that are new; call after they changed."""
        if self._room is not None:
            self._db.execute(
                f"INSERT OR IGNORE INTO search_pending(row, held) SELECT rowid, 0 FROM ({_KEYED})",
                (scope, _encode(skus).decode()),
            )

    def give_up(self) -> None:
        """Have the index rebuilt: too much changes at once, or rows go without a list of them."""
        self._room = None
        self._db.execute("DELETE FROM search_pending")
        self._db.execute("UPDATE read_models SET state = 'stale'")

    def is_ready(self) -> bool:
        return self._db.execute("SELECT 1 FROM read_models WHERE state <> 'ready' LIMIT 1").fetchone() is None

    def has_drifted(self) -> bool:
        """Whether a ready index differs from the rows, by SQLite's own proof; call within a transaction. Reads all."""
        if not self.is_ready():
            return False
        try:
            self._db.execute(f"INSERT INTO {NAME}({NAME}, rank) VALUES('integrity-check', 1)")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_CORRUPT_VTAB:
                raise
            return True
        return False

    def feed(self) -> int:
        """Take the next rows in, or rebuild a stale index; call within a transaction. Returns the rows taken."""
        if self._stale():
            self._db.execute(f"INSERT INTO {NAME}({NAME}) VALUES('rebuild')")
            self._note_ready()
            return int(self._db.execute(f"SELECT count(*) FROM {PRODUCT.table}").fetchone()[0])
        (last,) = self._db.execute(
            "SELECT max(row) FROM (SELECT row FROM search_pending ORDER BY row LIMIT ?)", (FEED_ROWS,)
        ).fetchone()
        if last is not None:
            self._db.execute(
                f"INSERT INTO {NAME}({NAME}, rowid, scope, {_COLUMNS})"
                f" SELECT 'delete', row, scope, {_COLUMNS} FROM search_pending WHERE row <= ? AND held",
                (last,),
            )
            self._db.execute(
                f"INSERT INTO {NAME}(rowid, scope, {_COLUMNS}) SELECT rowid, scope, {_COLUMNS} FROM products"
                " WHERE rowid IN (SELECT row FROM search_pending WHERE row <= ?)",
                (last,),
            )
        taken = self._db.execute("DELETE FROM search_pending WHERE row <= ?", (last,)).rowcount
        if self._db.execute("SELECT 1 FROM search_pending LIMIT 1").fetchone() is None:
            self._note_ready()
        return taken

    def _stale(self) -> bool:
        return self._db.execute("SELECT 1 FROM read_models WHERE state = 'stale' LIMIT 1").fetchone() is not None

    def _note_ready(self) -> None:
        self._db.execute(
            "UPDATE read_models SET state = 'ready',"
            " position = (SELECT position FROM streams WHERE streams.stream = read_models.stream)"
        )
