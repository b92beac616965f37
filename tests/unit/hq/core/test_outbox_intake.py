"""What HQ does with a batch of a store follows from what it has of that outbox."""

from __future__ import annotations

import pytest

from hq.core.outbox_intake import Gap, Repeat, Take, Verdict, judge
from storelink.contract.upstream import Entry, OutboxBatch

EPOCH = "019b76da1000-5f3c9a01"


def batch(first: int, last: int, acked: int = 0, store: str = "s") -> OutboxBatch:
    return OutboxBatch(
        store, EPOCH, first, last, acked, tuple(Entry(i, "x", 7, str(i)) for i in range(first, last + 1))
    )


@pytest.mark.parametrize(
    ("through", "seen", "verdict"),
    [
        (0, batch(1, 3), Take(0, 0)),
        (2, batch(1, 3), Take(2, 0)),
        (3, batch(1, 3), Repeat()),
        (9, batch(1, 3), Repeat()),
        (0, batch(2, 3), Gap()),
        (0, batch(5, 6, acked=4), Take(4, 4)),
        (0, batch(6, 6, acked=4), Gap()),
        (7, batch(5, 9, acked=4), Take(7, 0)),
    ],
)
def test_a_batch_is_judged_by_what_hq_has(through: int, seen: OutboxBatch, verdict: Verdict) -> None:
    assert judge(through, seen) == verdict
