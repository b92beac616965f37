"""Departures: lets the rows of streams that are followed no longer go, once what takes their place is here.

A stream that HQ does not have never comes: it is not waited for once HQ's other streams of its context are here and
the broker has shown no head of it for MISSING_AFTER_MS.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from storelink.contract.streams import Stream
from storelink.host.logs import get_logger
from storenode.core.phases import Phase
from storenode.follow.follower import Follower
from storenode.replica.writer import Replica

log = get_logger()

MISSING_AFTER_MS = 60_000
"""Six times as long as a follower waits for a head before it asks again."""

LOOK_EVERY_MS = 200


class UnfollowedStreams:
    """Lets departing streams go while the daemon runs; owned by the writer thread. It has no clock."""

    def __init__(self, replica: Replica, followers: Mapping[Stream, Follower]) -> None:
        self._replica, self._followers = replica, followers
        _, kept = replica.remove_unfollowed(())
        self._waiting = bool(kept)
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
        gone, left = self._replica.remove_unfollowed(missing)
        for name in gone:
            log.info("stream.removed", stream=name)
        self._waiting = bool(left)

    def _watch(self, now_ms: int, *, connected: bool) -> None:
        """Remember since when which stream has been asked for in vain."""
        for stream, follower in self._followers.items():
            if connected and follower.position.epoch is None and follower.phase is Phase.AWAITING_HEAD:
                self._headless.setdefault(stream, now_ms)
            else:
                self._headless.pop(stream, None)


def sweep_spools(root: Path, followed: Collection[Stream]) -> None:
    """Remove what was fetched for streams that are not followed any more; `root` has CONTEXT/SCOPE below it."""
    for place in root.glob("*/*"):
        with suppress(OSError):
            if f"{place.parent.name}/{place.name}" not in {str(s) for s in followed}:
                shutil.rmtree(place)
