"""The status publisher: gives HQ this store's status in one retained message; the last will says when it is gone.

Owned by the writer thread. It has no clock: `mono_ms` is monotonic, `wall_ms` since 1970. A status is sent on connect,
when a state changes, when a refusal begins or ends, and every minute.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from storelink.contract.contexts import Contexts
from storelink.contract.messages import Message
from storelink.contract.rows import EMPTY
from storelink.contract.status import OFFLINE, MessageRefusal, OutboxStatus, Status, StreamStatus, encode_status
from storelink.transport.port import Connected, Disconnected, Link, LinkEvent, NotConnected
from storenode.core import states

EVERY_MS = 60_000


def last_will(root: str, store: str, wall_ms: int) -> Message:
    """What the broker publishes for a store whose line broke."""
    return encode_status(root, Status(store, OFFLINE, wall_ms))


class StatusPublisher:
    """Publishes the status of one replica over one link; reads it through the writer's connection."""

    def __init__(self, root: str, store: str, replica: sqlite3.Connection, contexts: Contexts, link: Link) -> None:
        self._root, self._store, self._replica, self._link = root, store, replica, link
        self._contexts = contexts
        self._connected = False
        self._due_ms = 0
        self._published_keys: tuple[str, ...] = ()
        self._versions = _versions()

    def handle(self, event: LinkEvent, mono_ms: int) -> None:
        """Take one link event."""
        match event:
            case Connected():
                self._connected, self._due_ms = True, mono_ms
            case Disconnected():
                self._connected = False
            case _:
                pass

    def step(
        self,
        keys: tuple[str, ...],
        outbox: OutboxStatus | None,
        mono_ms: int,
        wall_ms: int,
        skew_ms: int | None = None,
    ) -> None:
        """Publish the status if it is due: connected anew, `keys` of the streams changed, or EVERY_MS passed."""
        if self._connected and (mono_ms >= self._due_ms or keys != self._published_keys):
            self._link.publish(encode_status(self._root, self._status(outbox, wall_ms, skew_ms)))
            self._published_keys, self._due_ms = keys, mono_ms + EVERY_MS

    def leave(self, wall_ms: int) -> None:
        """Publish that the store is offline, before a clean stop: the broker sends no will then."""
        with suppress(NotConnected):
            self._link.publish(last_will(self._root, self._store, wall_ms))

    def _status(self, outbox: OutboxStatus | None, wall_ms: int, skew_ms: int | None) -> Status:
        streams = {}
        for name, state, epoch, position, digest, ok, *rest, refusal in self._replica.execute(
            "SELECT stream, state, epoch, position, digest, verified_ok, quarantined, rebuilt_at_ms, rebuild_reason,"
            " refusal FROM streams ORDER BY stream"
        ):
            if name.partition("/")[0] in self._contexts:
                verified = None if ok is None else bool(ok)
                rest.append(MessageRefusal.from_json(refusal))
                streams[name] = StreamStatus(state, epoch, position, digest or EMPTY, verified, *rest)
        state = states.overall(
            {n: {"state": s.state, "epoch": s.epoch, "verified_ok": s.verified_ok} for n, s in streams.items()}
        )
        return Status(self._store, state, wall_ms, streams, outbox, self._versions, skew_ms)


def _versions() -> dict[str, str]:
    found = {"sqlite": sqlite3.sqlite_version}
    with suppress(PackageNotFoundError):
        found["storenode"] = version("storenode")
    return found
