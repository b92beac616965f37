"""The replica's one promise: rows and position change together, and equal a plain dict of what HQ had."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.rows import EMPTY
from storelink.contract.streams import Stream
from storenode.replica.streams import StreamState
from storenode.replica.writer import Replica
from tests.price_rows import EPOCH, NOW_MS, PRICE, Batch, advance, gone, line, rows_of

WEST = Stream.parse("price/zone-west", BUILT_IN)
PRODUCT = Stream.parse("product/all", BUILT_IN)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "replica.db"


@pytest.fixture
def replica(path: Path) -> Iterator[Replica]:
    replica = Replica.open(path, ("all", "price/zone-west"), BUILT_IN)
    yield replica
    replica.connection.close()


def test_a_new_replica_has_never_bootstrapped_any_stream(replica: Replica) -> None:
    assert replica.state(PRICE) == StreamState(None, 0, EMPTY)


def test_rows_and_position_arrive_together(replica: Replica, path: Path) -> None:
    assert advance(replica, 2, ([line(1, "a", 100), line(2, "b", 200)], [])) == 2
    assert rows_of(path) == {"a": 1, "b": 2}
    assert replica.state(PRICE) == StreamState(EPOCH, 2, f"{2:032x}")


@pytest.mark.parametrize(
    ("rows", "deleted", "left"),
    [
        ([line(1, "a", 1), line(2, "a", 2)], [], {"a": 2}),
        ([line(1, "a", 1)], [gone(2, "a")], {}),
        ([line(2, "a", 1)], [gone(1, "a")], {"a": 2}),
        ([line(1, "a", 1), line(3, "a", 3)], [gone(2, "a")], {"a": 3}),
        ([line(2, "a", 2)], [gone(1, "a"), gone(3, "a")], {}),
    ],
)
def test_within_a_batch_the_newest_state_of_an_entity_wins(
    replica: Replica, path: Path, rows: list[Row], deleted: list[Row], left: dict[str, int]
) -> None:
    advance(replica, 3, (rows, deleted))
    assert rows_of(path) == left


def test_rows_at_or_before_the_position_are_skipped(replica: Replica, path: Path) -> None:
    advance(replica, 3, ([line(3, "a", 3)], []))
    assert advance(replica, 4, ([line(2, "a", 2), line(4, "b", 4)], [gone(3, "a")])) == 1
    assert rows_of(path) == {"a": 3, "b": 4}


def test_a_replacement_takes_the_place_of_all_rows_of_its_scope_only(replica: Replica, path: Path) -> None:
    advance(replica, 9, ([line(8, "a", 8), line(9, "b", 9)], []))
    advance(replica, 1, ([line(1, "z", 1)], []), stream=WEST)
    replica.set_verified(PRICE, ok=False, at_ms=NOW_MS)
    advance(replica, 2, ([line(2, "c", 2)], []), replace=True)
    assert rows_of(path) == {"c": 2}
    assert rows_of(path, WEST) == {"z": 1}
    assert replica.state(PRICE).position == 2
    found = replica.connection.execute("SELECT verified_at_ms, verified_ok FROM streams WHERE stream = 'price/all'")
    assert found.fetchone() == (None, None)


def test_a_position_never_goes_back_without_a_replacement(replica: Replica, path: Path) -> None:
    advance(replica, 5, ([line(5, "a", 5)], []))
    with pytest.raises(ValueError, match="cannot go back from 5 to 4"):
        advance(replica, 4, ([line(4, "b", 4)], []))
    assert rows_of(path) == {"a": 5}


def test_batches_that_break_off_change_nothing(replica: Replica, path: Path) -> None:
    advance(replica, 1, ([line(1, "a", 1)], []))

    def broken() -> Iterator[Batch]:
        yield [line(2, "b", 2)], [gone(3, "a")]
        raise EOFError

    with pytest.raises(EOFError):
        replica.apply(
            PRICE, epoch=EPOCH, position=9, digest=EMPTY, head_seq=9, batches=broken(), replace=True, wall_ms=NOW_MS
        )
    assert rows_of(path) == {"a": 1}
    assert replica.state(PRICE) == StreamState(EPOCH, 1, f"{1:032x}")


def test_a_reader_sees_all_of_a_change_set_or_none_of_it(replica: Replica, path: Path) -> None:
    advance(replica, 1, ([line(1, "a", 1)], []))
    seen = []

    def slow() -> Iterator[Batch]:
        for seq in (2, 3, 4):
            yield [line(seq, f"n{seq}", seq)], []
            seen.append(rows_of(path))

    replica.apply(
        PRICE, epoch=EPOCH, position=4, digest=EMPTY, head_seq=4, batches=slow(), replace=False, wall_ms=NOW_MS
    )
    assert seen == [{"a": 1}] * 3
    assert rows_of(path) == {"a": 1, "n2": 2, "n3": 3, "n4": 4}


def test_a_killed_writer_leaves_the_last_commit(path: Path) -> None:
    """The files as they are while the writer lives, copied aside: what a kill -9 leaves behind."""
    replica = Replica.open(path, ("all",), BUILT_IN)
    advance(replica, 2, ([line(1, "a", 1), line(2, "b", 2)], []))
    replica.connection.execute("BEGIN IMMEDIATE")
    replica.connection.execute("DELETE FROM prices")
    copy = path.with_name("after.db")
    for suffix in ("", "-wal"):
        copy.with_name(copy.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    replica.connection.execute("ROLLBACK")
    replica.connection.close()
    survivor = Replica.open(copy, ("all",), BUILT_IN)
    assert survivor.state(PRICE) == StreamState(EPOCH, 2, f"{2:032x}")
    assert rows_of(copy) == {"a": 1, "b": 2}
    survivor.connection.close()
