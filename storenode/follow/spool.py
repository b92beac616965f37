"""The spool: fetched segments on disk until they are applied, so that a cut line never fetches one twice.

Files are named by the SHA-256 of their bytes and checked when read; a crash leaves at most a file
that nobody asks for, which the next sweep removes. Nothing here needs an fsync.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from storelink.contract import codec
from storelink.contract.contexts import Contexts, Row
from storelink.contract.errors import ContractViolation
from storelink.contract.messages import Message, SegmentRef, decode_segment
from storelink.contract.rows import Held
from storelink.contract.streams import Stream, segment_topic
from storenode.core.verdicts import CatchUp
from storenode.replica.file import on_disk

Batch = tuple[Sequence[Row], Sequence[Row], Sequence[Held]]
"""Rows, tombstones `(seq, *keys)`, and what is held for breaking a rule."""


class SegmentRefused(ContractViolation):
    """A fetched segment has the bytes that the head names, and cannot be used; `ref`: which."""

    def __init__(self, ref: SegmentRef, violation: ContractViolation) -> None:
        super().__init__(violation.reason, violation.detail, field=violation.field)
        self.ref = ref


class Spool(Protocol):
    """Payloads by their SHA-256."""

    def has(self, digest: str) -> bool: ...
    def put(self, digest: str, payload: bytes) -> None: ...
    def get(self, digest: str) -> bytes | None: ...
    def sweep(self, keep: Collection[str]) -> None: ...


class FileSpool:
    """A spool in a directory of its own; owned by the writer thread. Its methods raise ReplicaUnwritable."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with on_disk(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._known = {entry.name for entry in directory.iterdir() if len(entry.name) == 64}

    def has(self, digest: str) -> bool:
        return digest in self._known

    def put(self, digest: str, payload: bytes) -> None:
        part = self._directory / f"{digest}.part"
        with on_disk(part):
            part.write_bytes(payload)
            part.replace(self._directory / digest)
        self._known.add(digest)

    def get(self, digest: str) -> bytes | None:
        """The payload, or None when it is missing or damaged (then it is forgotten)."""
        path = self._directory / digest
        with on_disk(path):
            payload = path.read_bytes() if path.exists() else None
        if payload is None or sha256(payload).hexdigest() != digest:
            self._known.discard(digest)
            return None
        return payload

    def sweep(self, keep: Collection[str]) -> None:
        """Remove everything but `keep`."""
        with on_disk(self._directory):
            for entry in self._directory.iterdir():
                if entry.name not in keep:
                    entry.unlink(missing_ok=True)
        self._known &= set(keep)


class MemorySpool:
    """A spool for simulations."""

    def __init__(self) -> None:
        self._payloads: dict[str, bytes] = {}

    def has(self, digest: str) -> bool:
        return digest in self._payloads

    def put(self, digest: str, payload: bytes) -> None:
        self._payloads[digest] = payload

    def get(self, digest: str) -> bytes | None:
        return self._payloads.get(digest)

    def sweep(self, keep: Collection[str]) -> None:
        self._payloads = {k: v for k, v in self._payloads.items() if k in keep}


def unspooled(done: CatchUp, spool: Spool, root: str, stream: Stream) -> Iterator[Batch]:
    """
    Read the rows of a catch-up, one segment in memory at a time, the tail last.

    Raises:
        SegmentRefused: one that cannot be read, or is of another epoch than the head.
        ContractViolation: one has left the spool.
    """
    contexts = Contexts((stream.context,))
    for ref in done.needed:
        payload = spool.get(ref.sha256)
        if payload is None:
            raise ContractViolation("segment_gone", f"{ref.first}-{ref.last} left the spool")
        content_type = codec.content_type_of(payload)
        topic = segment_topic(root, stream, ref.first, ref.last)
        try:
            segment = decode_segment(root, Message(topic, payload, True, content_type), contexts)
            if segment.epoch != done.head.epoch:
                raise ContractViolation("epoch", f"segment of {segment.epoch} under a head of {done.head.epoch}")
        except ContractViolation as violation:
            raise SegmentRefused(ref, violation) from violation
        yield segment.rows, segment.deleted, segment.held
    yield done.head.tail_rows, done.head.tail_deleted, done.head.tail_held
