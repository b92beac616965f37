"""Runs one of our programs broken on purpose: `python -m tests.faults.sabotage NAME hq|storenode ARGUMENT...`.

The controls of the torture suite: each harness must catch the saboteur made for it. Product code is patched in this
process only; nothing in the product knows of it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any


def dedup_off() -> None:
    """HQ takes every batch as new, its table would hold an entry twice, and it takes a breath before its word."""
    from hq.collect import inbox, receiver
    from hq.core.outbox_intake import Take

    vars(receiver)["judge"] = lambda _through, batch: Take(batch.first - 1, 0)
    unique = ",\n    UNIQUE (store, epoch, seq)"
    assert unique in inbox.SCHEMA
    inbox.SCHEMA = inbox.SCHEMA.replace(unique, "")
    whole = receiver.Receiver._commit

    def commit(*arguments: Any) -> list[Any]:
        acks = whole(*arguments)
        time.sleep(0.05)
        return acks

    receiver.Receiver._commit = commit  # type: ignore[assignment,method-assign]


def ack_before_commit() -> None:
    """HQ acknowledges what it has taken in before it commits, and every seventh commit fails."""
    from hq.collect.receiver import Receiver

    commits = iter(range(1, sys.maxsize))

    def commit(self: Receiver, batches: Any, statuses: Any, rejected: Any, wall_ms: int) -> list[Any]:
        db = self._inbox.connection
        db.execute("BEGIN IMMEDIATE")
        for batch in batches:
            self._take(batch, wall_ms)
        names = {(b.store, b.outbox): b.acked for b in batches}
        self._acknowledge([self._ack(n, acked, None, resend=False) for n, acked in names.items()], wall_ms)
        db.execute("ROLLBACK" if batches and next(commits) % 7 == 0 else "COMMIT")
        return []

    Receiver._commit = commit  # type: ignore[method-assign]


def torn_apply() -> None:
    """A store commits in the middle of a change set, and takes a breath."""
    from storenode.replica.writer import Replica

    whole = Replica._write

    def torn(self: Replica, context: Any, scope: str, rows: Any, deleted: Any, after: int) -> int:
        half = len(rows) // 2
        written = whole(self, context, scope, rows[:half], (), after)
        self.connection.execute("COMMIT")
        time.sleep(0.05)
        self.connection.execute("BEGIN IMMEDIATE")
        return written + whole(self, context, scope, rows[half:], deleted, after)

    Replica._write = torn  # type: ignore[method-assign]


def digest_off() -> None:
    """A store believes whatever the broker gives it."""
    from storenode.core import verdicts
    from storenode.follow import fetch, follower, spool

    take = fetch.Fetch.take

    def credulous(self: fetch.Fetch, topic: str, payload: bytes, mono_ms: int, wall_ms: int) -> bool:
        ref = self._outstanding.get(topic)
        if ref is not None:
            vars(fetch)["sha256"] = lambda _bytes, promised=ref.sha256: _Promised(promised)
        return take(self, topic, payload, mono_ms, wall_ms)

    def get(self: spool.FileSpool, digest: str) -> bytes | None:
        return (self._directory / digest).read_bytes()

    def judge(position: Any, live: Any) -> Any:
        found = verdicts.judge(position, live)
        return verdicts.Advance() if isinstance(found, verdicts.Fork) else found

    fetch.Fetch.take = credulous  # type: ignore[method-assign]
    spool.FileSpool.get = get  # type: ignore[method-assign]
    vars(follower)["judge"] = judge


class _Promised:
    """What `sha256` returns to a store that checks nothing."""

    def __init__(self, digest: str) -> None:
        self._digest = digest

    def hexdigest(self) -> str:
        return self._digest


def segment_lost() -> None:
    """A store leaves out the last segment of every catch-up, and thinks itself complete."""
    from dataclasses import replace

    from storenode.follow import follower

    whole = vars(follower)["unspooled"]
    vars(follower)["unspooled"] = lambda done, *rest: whole(replace(done, needed=done.needed[:-1]), *rest)


def deaf() -> None:
    """A store that never asks whether the line still lives."""
    from storelink.transport.mqtt import MqttLink

    made: Callable[..., None] = MqttLink.__init__

    def init(self: MqttLink, *arguments: Any, **named: Any) -> None:
        made(self, *arguments, **(named | {"keepalive_s": 3_600}))

    MqttLink.__init__ = init  # type: ignore[method-assign]


def leak() -> None:
    """A daemon that keeps a descriptor and a megabyte more every half second."""
    kept: list[tuple[int, bytes]] = []

    def drip() -> None:
        while True:
            kept.append((os.open("/dev/null", os.O_RDONLY), os.urandom(1_048_576)))
            time.sleep(0.5)

    threading.Thread(target=drip, daemon=True).start()


def clock_unwatched() -> None:
    """A store that leaves it to APScheduler to notice that the clock was set."""
    from storenode.core.job_times import ClockWatch

    ClockWatch.jump_ms = lambda *_: 0  # type: ignore[method-assign]


SABOTAGES: dict[str, Callable[[], None]] = {
    act.__name__: act
    for act in (dedup_off, ack_before_commit, torn_apply, digest_off, segment_lost, deaf, leak, clock_unwatched)
}


def main() -> None:
    name, program, *arguments = sys.argv[1:]
    SABOTAGES[name]()
    sys.argv = [program, *arguments]
    import_module(f"{program}.cli").main()


if __name__ == "__main__":
    main()
