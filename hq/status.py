"""The status of HQ, as typed results: the master, how much of it is published, and whether all of it adds up.

Read from the master, from what `hq run` notes of the broker, and from the inbox; nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hq.collect.fleet import FLEET_STATES, FleetState, verify_fleet
from hq.collect.inbox import inbox_path, reading
from hq.collect.inbox import stores as read_stores
from hq.master import audit, lock
from hq.master.audit import Finding
from hq.master.context_migration import left_out
from hq.master.store import Master
from hq.publish.publication import publication_path, read_published
from storelink.contract.times import rfc3339


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """
    One stream, in the master and at the broker.

    Attributes:
        head_seq: the newest seq in the master.
        published: the newest seq that the broker has; 0 if it has none of this epoch.
        rows: live rows, without deleted ones.
        segments, retained_bytes: what the broker keeps of it.
    """

    epoch: str
    head_seq: int
    published: int
    rows: int
    digest: str
    segments: int
    retained_bytes: int


@dataclass(frozen=True, slots=True)
class ForeignHead:
    """The head of another master that the broker keeps; while there is one, `hq run` publishes nothing."""

    epoch: str
    seq: int
    published_at: str


@dataclass(frozen=True, slots=True)
class Status:
    """
    The master, and how much of it is published.

    Attributes:
        streams: by name, such as `price/all`.
        running: whether `hq run` is at work; then `pid` is its process and `connected` says whether it has the broker.
        foreign: by name of the stream.
        size_bytes: of the master and its write-ahead log; `publication_bytes`: of what `hq run` keeps beside it.
        left_out: contexts that are declared here otherwise than in the master, each with the reason.
    """

    streams: Mapping[str, StreamStatus]
    running: bool
    pid: int | None
    connected: bool
    foreign: Mapping[str, ForeignHead]
    path: Path
    size_bytes: int
    publication_bytes: int
    left_out: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Verification:
    """
    Whether the master adds up, and whether stores have what it had.

    Attributes:
        streams: each with the problems that were found.
        stores: store -> stream -> {"state", "position", "head_seq", "digest", "verified_ok", "ok", "refusal"}; `state`
            is current, behind, never, differs or refuses (`hq.collect.fleet.verify_fleet`), `ok` is None where nothing
            can be compared.
    """

    streams: tuple[Finding, ...]
    stores: Mapping[str, Mapping[str, Mapping[str, Any]]]

    @property
    def ok(self) -> bool:
        """Whether nothing differs and no store refuses a message; a store that is behind is no error."""
        return not (self.counts["differs"] or self.counts["refuses"] or any(each.problems for each in self.streams))

    @property
    def all_current(self) -> bool:
        """Whether it is `ok`, and every store has said what it has, all of it current."""
        return self.ok and all(self.stores.values()) and not (self.counts["behind"] or self.counts["never"])

    @property
    def counts(self) -> dict[FleetState, int]:
        """How many streams of stores are in each state."""
        found = Counter(said["state"] for streams in self.stores.values() for said in streams.values())
        return {state: found[state] for state in FLEET_STATES}


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """
    One change as the master logged it.

    Attributes:
        time: RFC 3339, HQ's clock.
        op: `upsert` or `delete`.
        key: the entity's key, in declared order.
        changed: the columns that changed; those that are set, for a new entity; none for a delete.
    """

    stream: str
    seq: int
    time: str
    op: str
    key: list[str]
    changed: list[str]


def status_of(master: Master) -> Status:
    """Read the status of the master that is open."""
    published, running = read_published(master.path), lock.runs(master.path)
    streams = {}
    for row in master.streams():
        sent = published["streams"].get(str(row.stream), {})
        if sent.get("epoch") != row.epoch:
            sent = {}
        streams[str(row.stream)] = StreamStatus(
            epoch=row.epoch,
            head_seq=row.head_seq,
            published=sent.get("published", 0),
            rows=row.rows,
            digest=row.digest,
            segments=sent.get("segments", 0),
            retained_bytes=sent.get("retained_bytes", 0),
        )
    heads = published["foreign"] if running else {}
    return Status(
        streams=streams,
        running=running,
        pid=published["pid"] if running else None,
        connected=bool(running and published["connected"]),
        foreign={name: ForeignHead(head["epoch"], head["seq"], rfc3339(head["at_ms"])) for name, head in heads.items()},
        path=master.path,
        size_bytes=_bytes(master.path),
        publication_bytes=_bytes(publication_path(master.path)),
        left_out=left_out(master.query, master.contexts),
    )


def verification_of(master: Master) -> Verification:
    """Prove that rows, log and digests of the master agree, and that stores have what it had."""
    with reading(inbox_path(master.path)) as inbox:
        said = read_stores(inbox) if inbox else {}
    return Verification(tuple(audit.verify(master)), verify_fleet(master, said))


def _bytes(path: Path) -> int:
    """The size of an SQLite file and of its write-ahead log; 0 if there is none."""
    return sum(p.stat().st_size for p in (path, path.with_name(path.name + "-wal")) if p.exists())
