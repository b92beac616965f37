"""Runs one of our programs broken on purpose: `python -m tests.faults.sabotage NAME hq|storenode ARGUMENT...`.

The controls of the torture suite: each harness must catch the saboteur made for it. Product code is patched in this
process only; nothing in the product knows of it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, Self


def dedup_off() -> None:
    """HQ takes every batch as new, its table would hold an entry twice, and it takes a breath before its word."""
    from hq.collect import inbox, receiver
    from hq.core.outbox_intake import Take

    vars(receiver)["judge"] = lambda _through, batch: Take(batch.first - 1, 0)
    unique = ",\n    UNIQUE (store, epoch, seq)"
    assert unique in inbox.SCHEMA
    inbox.SCHEMA = inbox.SCHEMA.replace(unique, "")
    whole = inbox.StoreInbox.transaction

    @contextmanager
    def transaction(self: inbox.StoreInbox) -> Iterator[None]:
        with whole(self):
            yield
        time.sleep(0.05)

    inbox.StoreInbox.transaction = transaction  # type: ignore[method-assign]


def ack_before_commit() -> None:
    """HQ acknowledges what it has been given although every seventh commit fails."""
    from hq.collect.inbox import StoreInbox

    commits = iter(range(1, sys.maxsize))
    whole, put, through = StoreInbox.transaction, StoreInbox.put, StoreInbox.through
    given: dict[tuple[str, str], int] = {}

    class Failed(Exception):
        pass

    @contextmanager
    def transaction(self: StoreInbox) -> Iterator[None]:
        before = self.connection.total_changes
        with suppress(Failed), whole(self):
            yield
            if self.connection.total_changes > before and next(commits) % 7 == 0:
                raise Failed

    def put_and_promised(self: StoreInbox, batch: Any, after: int, now_ms: int) -> None:
        put(self, batch, after, now_ms)
        given[batch.store, batch.outbox] = batch.last

    def through_what_was_given(self: StoreInbox, store: str, epoch: str) -> int:
        return max(through(self, store, epoch), given.get((store, epoch), 0))

    StoreInbox.transaction = transaction  # type: ignore[method-assign]
    StoreInbox.put = put_and_promised  # type: ignore[method-assign]
    StoreInbox.through = through_what_was_given  # type: ignore[method-assign]


def torn_apply() -> None:
    """A store commits in the middle of a change set, and takes a breath."""
    from storenode.replica.writer import Replica

    whole = Replica.apply

    def torn(self: Replica, stream: Any, **named: Any) -> int:
        batches, state = list(named.pop("batches")), self.state(stream)
        if batches and state.epoch == named["epoch"] and not named["replace"]:
            rows = list(batches[0][0])
            half = named | {"position": state.position, "digest": state.digest}
            whole(self, stream, batches=[(rows[: len(rows) // 2], ())], **half)
            time.sleep(0.05)
        return whole(self, stream, batches=batches, **named)

    Replica.apply = torn  # type: ignore[method-assign]


def digest_off() -> None:
    """A store believes whatever the broker gives it."""
    from storenode.core import verdicts
    from storenode.follow import fetch, follower, spool

    def judge(position: Any, live: Any) -> Any:
        found = verdicts.judge(position, live)
        return verdicts.Advance() if isinstance(found, verdicts.Fork) else found

    for module in (fetch, spool):
        vars(module)["sha256"] = lambda _bytes: _AsPromised()
    vars(follower)["judge"] = judge


class _AsPromised:
    """What `sha256` returns to a store that checks nothing: any digest is the promised one."""

    def hexdigest(self) -> Self:
        return self

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


def segment_lost() -> None:
    """A store leaves out the last segment of every catch-up, and thinks itself complete."""
    from dataclasses import replace

    from storenode.follow import follower

    whole = vars(follower)["unspooled"]
    vars(follower)["unspooled"] = lambda done, *rest: whole(replace(done, needed=done.needed[:-1]), *rest)


def no_keepalive() -> None:
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
    for act in (dedup_off, ack_before_commit, torn_apply, digest_off, segment_lost, no_keepalive, leak, clock_unwatched)
}


def main() -> None:
    name, program, *arguments = sys.argv[1:]
    SABOTAGES[name]()
    sys.argv = [program, *arguments]
    import_module(f"{program}.cli").main()


if __name__ == "__main__":
    main()
