"""Tombstones leave the master in order of seq, and nothing that they deleted comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.core.changes import Change
from hq.errors import MasterBusy
from hq.master import audit
from hq.master.retention import Retention, prune_tombstones
from hq.master.store import Master
from hq.publish.publication import Publication
from hq.publish.sizes import Sizes
from hq.publish.stream_messages import StreamMessages
from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.messages import decode_head, decode_segment
from storelink.contract.streams import Stream

PRICE = Stream.parse("price/all", BUILT_IN)


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    Master.create(tmp_path / "hq.db", BUILT_IN, 0)
    with Master.open(tmp_path / "hq.db", BUILT_IN) as found:
        yield found


def price(sku: int, amount: int | None) -> Change:
    return Change((str(sku), "regular"), None if amount is None else ("EUR", f"[[0,null,{amount}]]"))


def floor_of(master: Master) -> int:
    return next(row.floor for row in master.streams() if row.stream == PRICE)


def tombstones(master: Master) -> list[int]:
    return [int(str(row[0])) for row in master.rows_between(PRICE, 1, 10_000)[1]]


def problems(master: Master) -> list[str]:
    return [problem for finding in audit.verify(master) for problem in finding.problems]


def test_the_old_ones_go_the_floor_rises_and_the_log_stays(master: Master) -> None:
    master.commit(PRICE, [price(sku, 1) for sku in range(4)], 0)
    for at_ms in (100, 200, 300):
        master.commit(PRICE, [price(at_ms // 100, None)], at_ms)
    assert prune_tombstones(master, PRICE, 300, 10) == (2, 6)
    assert (tombstones(master), floor_of(master)) == ([7], 6)
    assert [e.op for e in master.events_after(PRICE, 4, 10)] == ["delete"] * 3
    assert problems(master) == []


def test_one_transaction_removes_no_more_than_it_is_told_the_oldest_first(master: Master) -> None:
    master.commit(PRICE, [price(sku, 1) for sku in range(4)], 0)
    master.commit(PRICE, [price(sku, None) for sku in range(4)], 1)
    assert prune_tombstones(master, PRICE, 2, 3) == (3, 7)
    assert tombstones(master) == [8]


def test_an_entity_that_came_back_after_its_tombstone_went_is_verified(master: Master) -> None:
    """HQ no longer knows its earlier version then, and the event says so: prev_seq is 0."""
    master.commit(PRICE, [price(1, 1)], 0)
    master.commit(PRICE, [price(1, None)], 0)
    prune_tombstones(master, PRICE, 1, 10)
    master.commit(PRICE, [price(1, 2)], 5)
    assert [e.prev_seq for e in master.events_after(PRICE, 0, 10)] == [0, 1, 0]
    assert problems(master) == []


def test_verify_finds_a_tombstone_that_went_without_the_floor_and_a_floor_that_is_no_deletion(master: Master) -> None:
    master.commit(PRICE, [price(1, 1), price(2, 1), price(1, None)], 0)
    with master.writing():
        master.query("DELETE FROM master_price WHERE deleted = 1")
    assert problems(master) == ["the newest events are not the master's rows"]
    with master.writing():
        master.query("UPDATE streams SET floor = 2 WHERE stream = 'price/all'")
    assert "tombstones are said to be gone up to 2, which is no deletion" in problems(master)


def test_a_writer_is_not_waited_for_and_the_turn_comes_again(master: Master) -> None:
    master.commit(PRICE, [price(1, 1)], 0)
    master.commit(PRICE, [price(1, None)], 0)
    retention = Retention(master, 10, every_ms=50)
    with Master.open(master.path, BUILT_IN) as desk, desk.writing():
        with pytest.raises(MasterBusy):
            prune_tombstones(master, PRICE, 1, 10)
        assert [retention.step(now_ms, 1_000) for now_ms in (0, 100)] == [False, False]
    assert [retention.step(now_ms, 1_000) for now_ms in (200, 1_100, 1_100)] == [False, True, False]
    assert (tombstones(master), floor_of(master)) == ([], 2)


def test_pruning_begins_when_the_oldest_is_overdue_and_then_takes_all_that_are_old_enough(master: Master) -> None:
    master.commit(PRICE, [price(sku, 1) for sku in range(3)], 0)
    for sku in range(3):
        master.commit(PRICE, [price(sku, None)], 100 * sku)
    retention = Retention(master, 1_600, every_ms=10)
    assert [retention.step(now_ms, 1_700) for now_ms in (0, 10)] == [False, False]
    assert retention.step(20, 1_701)
    assert tombstones(master) == [6]


def fetched(messages: StreamMessages, publication: Publication) -> dict[Row, Row]:
    """What a store holds that fetches everything: each segment in turn, then the tail."""
    made = messages.head(0)
    assert made is not None
    head = decode_head("t", made[0], BUILT_IN)
    state: dict[Row, Row] = {}
    parts = []
    for ref in head.segments:
        message = publication.message(PRICE, messages.epoch, (ref.first, ref.last))
        assert message is not None
        segment = decode_segment("t", message, BUILT_IN)
        parts.append((segment.rows, segment.deleted))
    for rows, deleted in (*parts, (head.tail_rows, head.tail_deleted)):
        for gone in deleted:
            state.pop(gone[1:3], None)
        state.update({row[1:3]: row for row in rows})
    return state


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("newer", [0, 12])
def test_a_row_does_not_come_back_from_an_old_segment_when_its_tombstone_goes(
    master: Master, tmp_path: Path, restarted: bool, newer: int
) -> None:
    """
    Simulation, seed 57 of 2026-11-25: the segment with the row was not stale enough to be rewritten, the one with
    the tombstone was, without it; a store that bootstrapped had the deleted price again.
    """
    sizes, publication = Sizes(60, 100_000, 12, 12), Publication.open(tmp_path / "p.db")
    epoch = next(row.epoch for row in master.streams() if row.stream == PRICE)
    messages = StreamMessages.load(PRICE, "t", master, publication, epoch, sizes)
    steps = [[price(sku, 1) for sku in range(24)], [price(3, None)], [price(100 + n, 1) for n in range(newer)]]
    for changes in steps:
        master.commit(PRICE, changes, 0)
        while not messages.segments.seal(0, 8):
            pass
    assert ("3", "regular") not in fetched(messages, publication)
    prune_tombstones(master, PRICE, 1, 10)
    if restarted:
        messages = StreamMessages.load(PRICE, "t", master, publication, epoch, sizes)
    while not messages.segments.seal(0, 8):
        pass
    assert fetched(messages, publication) == {row[1:3]: row for row in master.live_rows(PRICE).values()}
