"""The spool: fetched segments on disk until they are applied, so that a cut line never fetches one twice.

Files are named by the SHA-256 of their bytes and checked when read; a crash leaves at most a file
that nobody asks for, which the next sweep removes. Nothing here needs an fsync.
"""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256
from pathlib import Path
from typing import Protocol


class Spool(Protocol):
    """Payloads by their SHA-256."""

    def has(self, digest: str) -> bool: ...
    def put(self, digest: str, payload: bytes) -> None: ...
    def get(self, digest: str) -> bytes | None: ...
    def sweep(self, keep: Collection[str]) -> None: ...


class FileSpool:
    """A spool in a directory of its own; owned by the writer thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._known = {entry.name for entry in directory.iterdir() if len(entry.name) == 64}

    def has(self, digest: str) -> bool:
        return digest in self._known

    def put(self, digest: str, payload: bytes) -> None:
        part = self._directory / f"{digest}.part"
        part.write_bytes(payload)
        part.replace(self._directory / digest)
        self._known.add(digest)

    def get(self, digest: str) -> bytes | None:
        """The payload, or None when it is missing or damaged (then it is forgotten)."""
        try:
            payload = (self._directory / digest).read_bytes()
        except FileNotFoundError:
            self._known.discard(digest)
            return None
        if sha256(payload).hexdigest() != digest:
            self._known.discard(digest)
            return None
        return payload

    def sweep(self, keep: Collection[str]) -> None:
        """Remove everything but `keep`."""
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
