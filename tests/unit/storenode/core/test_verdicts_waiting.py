"""Live batches that wait: complete change sets only, bounded; and the proof that a replica claims too much."""

from __future__ import annotations

from typing import Any

import pytest

from storelink.contract.contexts import BUILT_IN
from storelink.contract.messages import Live
from storelink.contract.rows import EMPTY
from storelink.contract.streams import Stream
from storenode.core import verdicts
from storenode.core.verdicts import AheadOfHq, Parked, Pending, Position

PRICE = Stream.parse("price/all", BUILT_IN)
OLD, EPOCH, NEW = "019b76da0000-00000000", "019b76da1000-5f3c9a01", "019b76da2000-00000000"
AT_7 = Position(EPOCH, 7, EMPTY)


def live(first: int, last: int, *, commit: bool = True, at_ms: int = 1, epoch: str = EPOCH) -> Live:
    return Live(PRICE, epoch, first, last, EMPTY, f"{last:032x}", commit, at_ms)


def heartbeat(seq: int, at_ms: int, epoch: str = EPOCH) -> Live:
    return live(seq + 1, seq, at_ms=at_ms, epoch=epoch)


def test_only_complete_change_sets_are_taken() -> None:
    pending = Pending()
    assert (pending.end(AT_7), pending.take_complete()) == (AT_7, [])
    for first, commit in ((8, False), (9, True), (10, False)):
        pending.add(live(first, first, commit=commit), 1)
    assert [b.last for b in pending.take_complete()] == [8, 9]
    assert pending.end(AT_7) == Position(EPOCH, 10, f"{10:032x}")
    assert pending.take_complete() == []


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "WAITING_BYTES_MAX", 100)
    pending, parked = Pending(), Parked()
    for first in range(3):
        pending.add(live(first + 1, first + 1, commit=False), 50)
        parked.add(live(first + 1, first + 1), 50)
    assert pending.is_full
    assert [b.last for b, _ in parked.take_all()] == [1, 2]
    assert parked.take_all() == []
    pending.clear()
    assert not pending.is_full


def proven(*messages: Any, at: Position = AT_7) -> bool:
    found = AheadOfHq()
    return [found.is_proven_by(message, at) for message in messages][-1]


def test_three_later_heartbeats_that_end_before_the_position_prove_it_wrong() -> None:
    assert not proven(heartbeat(6, 10), heartbeat(6, 20))
    assert proven(heartbeat(6, 10), heartbeat(6, 20), heartbeat(6, 30))
    assert proven(heartbeat(9, 10, OLD), heartbeat(9, 20, OLD), heartbeat(9, 30, OLD))


@pytest.mark.parametrize(
    "messages",
    [
        [heartbeat(6, 10), heartbeat(6, 10), heartbeat(6, 10)],  # one message, again and again
        [heartbeat(6, 30), heartbeat(6, 20), heartbeat(6, 10)],  # old ones, out of order
        [heartbeat(6, 10), heartbeat(6, 20), heartbeat(7, 30), heartbeat(6, 40)],  # HQ is where we are
        [heartbeat(6, 10), heartbeat(6, 20), live(8, 8, at_ms=30), heartbeat(6, 40)],  # it goes on from there
        [heartbeat(1, 10, NEW), heartbeat(1, 20, NEW), heartbeat(1, 30, NEW)],  # a later history is a fork
    ],
)
def test_anything_less_proves_nothing(messages: list[Live]) -> None:
    assert not proven(*messages)


def test_a_replica_that_never_was_claims_nothing() -> None:
    assert not proven(*(heartbeat(0, at_ms) for at_ms in (1, 2, 3)), at=Position(None, 0, EMPTY))
