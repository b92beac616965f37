"""The publication: which segments exist, as bytes, and what the broker has acknowledged of each stream.

A file of its own beside the master, so that publishing never waits for an import. `hq run` is its only
writer, and this module the only one to write its tables. It is derived: without it HQ seals and seeds everything anew.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hq.master.connection import translated
from storelink.contract.codec import body_bytes
from storelink.contract.messages import Message, SegmentRef
from storelink.contract.streams import Stream
from storelink.host.sqlite import database, open_readonly

VERSION = 3

PRAGMAS = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"

READ_TIMEOUT_S = 5.0


SegmentName = tuple[int, int, str]
"""First and last seq, and the SHA-256 of the bytes: a range may be sealed anew under the same topic."""


@dataclass(frozen=True, slots=True)
class BrokerPosition:
    """
    What the broker has acknowledged of a stream.

    Attributes:
        seq: up to there it has a head, and the segments that the head names; 0: nothing is known.
        head_sha256: of the head's bytes; empty if the broker has none, or lost something that it names.
        floor: no segment in force holds an old version of what was deleted up to there.
    """

    epoch: str
    seq: int = 0
    head_sha256: str = ""
    floor: int = 0


def publication_path(master: Path) -> Path:
    return master.with_name(f"{master.stem}.published{master.suffix}")


class Publication:
    """The writing connection; owned by the publisher's thread. A crash leaves segments that are sent again."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Take over an open connection; `Publication.open` makes one."""
        self.connection = connection

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open the publication at `path`; one of another version is made anew, and HQ seals and seeds everything."""
        connection = sqlite3.connect(path, isolation_level=None)
        connection.executescript(PRAGMAS)
        publication = cls(connection)
        if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            publication._create()
        return publication

    def close(self) -> None:
        self.connection.close()

    def _create(self) -> None:
        schema = database(self.connection)
        with self.connection:
            self.connection.execute("BEGIN IMMEDIATE")
            for name in ("segments", "payloads", "streams", "run", "foreign_heads"):
                self.connection.execute(f"DROP TABLE IF EXISTS {name}")
            key = {"stream": str, "epoch": str, "first": int, "last": int}
            schema.table("segments").create(
                key
                | {"rows": int, "size_bytes": int, "body_bytes": int, "sha256": str, "topic": str, "acked": int}
                | {"retired_at_ms": int},
                pk=tuple(key),
            )
            # Apart, so that to list and to acknowledge segments reads and writes no payload.
            schema.table("payloads").create(
                key | {"content_type": str, "attributes": str, "payload": bytes}, pk=tuple(key)
            )
            schema.table("streams").create(
                {"stream": str, "epoch": str, "seq": int, "head_sha256": str, "floor": int}, pk="stream"
            )
            schema.table("foreign_heads").create({"stream": str, "epoch": str, "seq": int, "at_ms": int}, pk="stream")
            schema.table("run").create({"id": int, "pid": int, "connected": int, "seen_at_ms": int}, pk="id")
            self.connection.execute(f"PRAGMA user_version = {VERSION}")

    def position(self, stream: Stream, epoch: str) -> BrokerPosition:
        """What the broker has of a stream in this epoch."""
        row = self.connection.execute(
            "SELECT epoch, seq, head_sha256, floor FROM streams WHERE stream = ? AND epoch = ?", (str(stream), epoch)
        ).fetchone()
        return BrokerPosition(*row) if row else BrokerPosition(epoch)

    def set_position(self, stream: Stream, position: BrokerPosition) -> None:
        self.connection.execute(
            "INSERT OR REPLACE INTO streams(stream, epoch, seq, head_sha256, floor) VALUES(?, ?, ?, ?, ?)",
            (str(stream), position.epoch, position.seq, position.head_sha256, position.floor),
        )

    def set_run(self, pid: int | None, *, connected: bool, wall_ms: int) -> None:
        """Record the state of `hq run` for other processes; `pid`: None once it has stopped."""
        self.connection.execute("INSERT OR REPLACE INTO run VALUES(1, ?, ?, ?)", (pid, int(connected), wall_ms))

    def foreign(self) -> list[tuple[str, str, int, int]]:
        """The heads (stream, epoch, seq, at_ms) because of which `hq run`, when last at work, was silent."""
        return self.connection.execute("SELECT stream, epoch, seq, at_ms FROM foreign_heads ORDER BY stream").fetchall()

    def set_foreign(self, heads: Iterable[tuple[str, str, int, int]]) -> None:
        """Record the heads (stream, epoch, seq, at_ms) because of which `hq run` publishes nothing; none: it does."""
        with self.connection:
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.execute("DELETE FROM foreign_heads")
            self.connection.executemany("INSERT INTO foreign_heads VALUES(?, ?, ?, ?)", heads)

    def segments(self, stream: Stream, epoch: str) -> list[SegmentRef]:
        """The segments in force, in order; they cover 1..sealed."""
        found = self.connection.execute(
            "SELECT first, last, rows, size_bytes, sha256 FROM segments"
            " WHERE stream = ? AND epoch = ? AND retired_at_ms IS NULL ORDER BY first",
            (str(stream), epoch),
        )
        return [SegmentRef(*row) for row in found]

    def body_bytes(self, stream: Stream, epoch: str) -> dict[int, int]:
        """What the segments in force hold before compression, by the seq at which they begin."""
        found = self.connection.execute(
            "SELECT first, body_bytes FROM segments WHERE stream = ? AND epoch = ? AND retired_at_ms IS NULL",
            (str(stream), epoch),
        )
        return dict(found.fetchall())

    def add(self, stream: Stream, epoch: str, made: Sequence[tuple[SegmentRef, Message]], wall_ms: int) -> None:
        """Record adjacent sealed segments and retire those in their range, in one transaction."""
        with self.connection:
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.execute(
                "UPDATE segments SET retired_at_ms = ? WHERE stream = ? AND epoch = ?"
                " AND retired_at_ms IS NULL AND first >= ? AND last <= ?",
                (wall_ms, str(stream), epoch, made[0][0].first, made[-1][0].last),
            )
            spans = [(str(stream), epoch, ref.first, ref.last) for ref, _ in made]
            self.connection.executemany(
                "INSERT OR REPLACE INTO segments VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, 0, NULL)",
                [
                    (*span, ref.rows, ref.size_bytes, body_bytes(message.payload), ref.sha256, message.topic)
                    for span, (ref, message) in zip(spans, made, strict=True)
                ],
            )
            self.connection.executemany(
                "INSERT OR REPLACE INTO payloads VALUES(?, ?, ?, ?, ?, ?, ?)",
                [
                    (*span, message.content_type, json.dumps(dict(message.attributes)), message.payload)
                    for span, (_, message) in zip(spans, made, strict=True)
                ],
            )

    def unsent(self, stream: Stream, epoch: str) -> list[SegmentName]:
        """Segments in force that the broker has not acknowledged."""
        return self.connection.execute(
            "SELECT first, last, sha256 FROM segments WHERE stream = ? AND epoch = ?"
            " AND acked = 0 AND retired_at_ms IS NULL ORDER BY first",
            (str(stream), epoch),
        ).fetchall()

    def acked(self, stream: Stream, epoch: str) -> list[SegmentRef]:
        """Segments in force that the broker has acknowledged."""
        unsent = {(first, last) for first, last, _ in self.unsent(stream, epoch)}
        return [ref for ref in self.segments(stream, epoch) if (ref.first, ref.last) not in unsent]

    def message(self, stream: Stream, epoch: str, span: tuple[int, int]) -> Message | None:
        row = self.connection.execute(
            "SELECT topic, payload, content_type, attributes"
            " FROM segments JOIN payloads USING (stream, epoch, first, last)"
            " WHERE stream = ? AND epoch = ? AND first = ? AND last = ?",
            (str(stream), epoch, *span),
        ).fetchone()
        return Message(row[0], row[1], True, row[2], json.loads(row[3])) if row else None

    def set_acked(self, stream: Stream, epoch: str, segment: SegmentName, *, acked: bool = True) -> None:
        """The broker has these bytes; what was sealed under the same name meanwhile is still unsent."""
        self.connection.execute(
            "UPDATE segments SET acked = ? WHERE stream = ? AND epoch = ? AND first = ? AND last = ? AND sha256 = ?",
            (int(acked), str(stream), epoch, *segment),
        )

    def forget_acks(self, stream: Stream) -> None:
        """The broker lost its retained messages: everything in force is to be sent again."""
        self.connection.execute("UPDATE segments SET acked = 0 WHERE stream = ?", (str(stream),))
        self.connection.execute("UPDATE streams SET seq = 0, head_sha256 = '' WHERE stream = ?", (str(stream),))

    def forget(self, stream: Stream) -> None:
        """Forget everything of a stream; it is sealed and seeded anew."""
        self.connection.execute("DELETE FROM segments WHERE stream = ?", (str(stream),))
        self.connection.execute("DELETE FROM payloads WHERE stream = ?", (str(stream),))
        self.connection.execute("DELETE FROM streams WHERE stream = ?", (str(stream),))

    def retire_epochs(self, stream: Stream, epoch: str, wall_ms: int) -> None:
        """Retire all segments of other epochs."""
        self.connection.execute(
            "UPDATE segments SET retired_at_ms = ? WHERE stream = ? AND epoch != ? AND retired_at_ms IS NULL",
            (wall_ms, str(stream), epoch),
        )

    def retired(self, stream: Stream, before_ms: int) -> list[tuple[str, int, int, str]]:
        """Replaced segments whose grace is over: (epoch, first, last, topic)."""
        return self.connection.execute(
            "SELECT epoch, first, last, topic FROM segments WHERE stream = ? AND retired_at_ms < ? LIMIT 40",
            (str(stream), before_ms),
        ).fetchall()

    def remove(self, stream: Stream, epoch: str, span: tuple[int, int]) -> None:
        """Forget a retired segment; one of the same range that was sealed meanwhile stays."""
        with self.connection:
            self.connection.execute("BEGIN IMMEDIATE")
            done = self.connection.execute(
                "DELETE FROM segments WHERE stream = ? AND epoch = ? AND first = ? AND last = ?"
                " AND retired_at_ms IS NOT NULL",
                (str(stream), epoch, *span),
            )
            if done.rowcount:
                self.connection.execute(
                    "DELETE FROM payloads WHERE stream = ? AND epoch = ? AND first = ? AND last = ?",
                    (str(stream), epoch, *span),
                )

    def is_taken(self, stream: Stream, epoch: str, span: tuple[int, int]) -> bool:
        """Whether a segment of this range is in force or retired, its retained copy not cleared yet."""
        return (
            self.connection.execute(
                "SELECT 1 FROM segments WHERE stream = ? AND epoch = ? AND first = ? AND last = ?",
                (str(stream), epoch, *span),
            ).fetchone()
            is not None
        )

    def in_force(self, stream: Stream, topic: str) -> bool:
        """Whether a topic names a segment in force (a new epoch may use a retired one's name)."""
        return (
            self.connection.execute(
                "SELECT 1 FROM segments WHERE stream = ? AND topic = ? AND retired_at_ms IS NULL", (str(stream), topic)
            ).fetchone()
            is not None
        )


def read_position(path: Path, stream: Stream) -> tuple[str, int]:
    """Read, without `hq run`, up to which epoch and seq the broker has one stream; "", 0: nothing is known."""
    file = publication_path(path)
    if not file.exists():
        return "", 0
    with translated(file), closing(open_readonly(file, READ_TIMEOUT_S)) as connection:
        try:
            found = connection.execute("SELECT epoch, seq FROM streams WHERE stream = ?", (str(stream),)).fetchone()
        except sqlite3.OperationalError:
            return "", 0  # `hq run` has only just made the file
    return found or ("", 0)


def read_published(path: Path) -> dict[str, Any]:
    """
    Read the publication of the master at `path` without `hq run`.

    Returns:
        {"streams": {stream: {"epoch", "published", "segments", "retained_bytes"}},
         "connected": bool, "pid": int | None, "seen_at_ms": int,
         "foreign": {stream: {"epoch", "seq", "at_ms"}}}
    """
    document: dict[str, Any] = {"streams": {}, "connected": False, "pid": None, "seen_at_ms": 0, "foreign": {}}
    file = publication_path(path)
    if not file.exists():
        return document
    with translated(file):
        connection = open_readonly(file, READ_TIMEOUT_S)
    try:
        for stream, epoch, seq in connection.execute("SELECT stream, epoch, seq FROM streams"):
            count, size = connection.execute(
                "SELECT count(*), coalesce(sum(size_bytes), 0) FROM segments WHERE stream = ? AND epoch = ?"
                " AND retired_at_ms IS NULL",
                (stream, epoch),
            ).fetchone()
            document["streams"][stream] = {
                "epoch": epoch,
                "published": seq,
                "segments": count,
                "retained_bytes": size,
            }
        run = connection.execute("SELECT pid, connected, seen_at_ms FROM run WHERE id = 1").fetchone()
        if run:
            document |= {"pid": run[0], "connected": bool(run[1]), "seen_at_ms": run[2]}
        for stream, epoch, seq, at_ms in connection.execute("SELECT * FROM foreign_heads ORDER BY stream"):
            document["foreign"][stream] = {"epoch": epoch, "seq": seq, "at_ms": at_ms}
    except sqlite3.OperationalError:
        pass  # `hq run` has only just made the file
    finally:
        connection.close()
    return document
