"""What stores sent leaves the inbox when it is old enough, and is never taken in twice for it."""

from __future__ import annotations

from pathlib import Path

from hq.collect.inbox import StoreInbox
from hq.collect.retention import EVERY_MS, InboxRetention
from storelink.contract.upstream import Entry, OutboxBatch

EPOCH = "019b76da1000-0c0ffee0"


def fill(inbox: StoreInbox, first: int, last: int, wall_ms: int) -> None:
    with inbox.transaction():
        inbox.put(
            OutboxBatch("s", EPOCH, first, last, 0, [Entry(n, "t", 1, "0") for n in range(first, last + 1)]), 0, wall_ms
        )


def kept(inbox: StoreInbox) -> list[int]:
    return [seq for (seq,) in inbox.connection.execute("SELECT seq FROM entries ORDER BY position")]


def test_entries_leave_when_they_are_older_than_they_are_kept(tmp_path: Path) -> None:
    inbox = StoreInbox.open(tmp_path / "inbox.db")
    fill(inbox, 1, 10, 1_000)
    fill(inbox, 11, 12, 5_000)
    pruning = InboxRetention(inbox, 2_000, prune_max=4)
    assert not pruning.step(0, 3_000)
    assert kept(inbox) == list(range(1, 13))
    turns = [pruning.step(EVERY_MS, 3_001) for _ in range(3)]
    assert (turns, kept(inbox)) == ([True, True, False], [11, 12])
    assert not pruning.step(EVERY_MS + 1, 9_000)
    assert kept(inbox) == [11, 12]
    assert inbox.through("s", EPOCH) == 12


def test_nothing_leaves_an_inbox_that_is_kept_for_ever(tmp_path: Path) -> None:
    inbox = StoreInbox.open(tmp_path / "inbox.db")
    fill(inbox, 1, 3, 1)
    assert not InboxRetention(inbox, 0).step(10**9, 10**15)
    assert kept(inbox) == [1, 2, 3]
