"""A version that breaks a rule is held; everything else goes on; a later version or a deletion releases it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.rows import EMPTY, Held, canonical, hash_of, row_hash, to_hex
from storelink.contract.streams import Stream
from storenode.replica import queries, verify
from storenode.replica.file import reading
from storenode.replica.status import status_document
from storenode.replica.writer import Replica, RowBatch

PRICE = Stream.parse("price/all", BUILT_IN)
EPOCH = "019b76da1000-5f3c9a01"


def line(seq: int, sku: str, amount: int = 1) -> Row:
    return (seq, sku, "regular", "EUR", f"[[0,null,{amount}]]")


def bad(seq: int, sku: str) -> Held:
    row = canonical((seq, sku, "regular", "eur", "[[0,null,7]]")).decode()
    return Held(seq, (sku, "regular"), row, "currency: 'eur' is no currency")


class Stand:
    """A replica, and beside it what HQ announces: the digest over all newest versions, held or not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.replica = Replica.open(path, ("all",), BUILT_IN)
        self.hashes: dict[str, int] = {}

    def apply(self, position: int, *batches: RowBatch, replace: bool = False) -> None:
        for rows, deleted, *held in batches:
            marks = [(r[0], str(r[1]), row_hash(r)) for r in rows] + [(r[0], str(r[1]), 0) for r in deleted]
            marks += [(h.seq, h.key[0], hash_of(h.row.encode())) for h in (held[0] if held else ())]
            for _, sku, number in sorted(marks, key=lambda mark: int(str(mark[0]))):
                self.hashes[sku] = number
        announced = to_hex(sum(self.hashes.values()))
        self.replica.apply(
            PRICE,
            epoch=EPOCH,
            position=position,
            digest=announced,
            head_seq=position,
            batches=batches,
            replace=replace,
            wall_ms=1_767_225_600_000,
        )

    def amounts(self) -> dict[str, int]:
        with reading(self.path) as db:
            return dict(db.execute("SELECT sku, amount_minor FROM current_prices"))

    def held(self) -> list[tuple[str, int]]:
        return [(each["key"][0], each["seq"]) for each in queries.quarantined(self.path)]

    def count(self) -> int:
        return int(status_document(self.path, BUILT_IN)["streams"]["price/all"]["quarantined"])


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    found = Stand(tmp_path / "replica.db")
    yield found
    found.replica.connection.close()


def test_the_last_good_version_serves_while_a_bad_one_is_held(stand: Stand) -> None:
    stand.apply(2, ([line(1, "a"), line(2, "b")], []))
    stand.apply(4, ([line(4, "b", 2)], [], [bad(3, "a")]))
    assert (stand.amounts(), stand.held(), stand.count()) == ({"a": 1, "b": 2}, [("a", 3)], 1)
    assert verify.scan(stand.path, PRICE).ok
    (found,) = queries.quarantined(stand.path)
    assert (found["reason"], found["row"][3]) == ("currency: 'eur' is no currency", "eur")


def test_an_entity_that_was_never_good_is_not_served(stand: Stand) -> None:
    stand.apply(2, ([line(1, "a")], [], [bad(2, "b")]))
    assert (stand.amounts(), stand.held()) == ({"a": 1}, [("b", 2)])
    assert verify.scan(stand.path, PRICE).ok


@pytest.mark.parametrize("freed", [([line(3, "a", 9)], []), ([], [(3, "a", "regular")])])
def test_a_later_good_version_or_a_deletion_releases_it(stand: Stand, freed: RowBatch) -> None:
    stand.apply(2, ([line(1, "a")], [], [bad(2, "a")]))
    stand.apply(3, freed)
    assert (stand.amounts(), stand.held(), stand.count()) == ({"a": 9} if freed[0] else {}, [], 0)
    assert verify.scan(stand.path, PRICE).ok


def test_within_one_batch_the_newest_version_counts(stand: Stand) -> None:
    stand.apply(4, ([line(1, "a", 1), line(4, "b", 4)], [], [bad(2, "a"), bad(3, "b")]))
    assert (stand.amounts(), stand.held()) == ({"a": 1, "b": 4}, [("a", 2)])
    assert verify.scan(stand.path, PRICE).ok


def test_a_worse_version_takes_the_place_of_a_bad_one_and_a_repeat_changes_nothing(stand: Stand) -> None:
    stand.apply(1, ([], [], [bad(1, "a")]))
    stand.apply(2, ([], [], [bad(2, "a")]))
    stand.apply(2, ([], [], [bad(1, "a")]))
    assert stand.held() == [("a", 2)]


def test_a_rebuild_forgets_what_was_held(stand: Stand) -> None:
    stand.apply(2, ([line(1, "a")], [], [bad(2, "a")]))
    stand.apply(3, ([line(3, "a", 5)], []), replace=True)
    assert (stand.amounts(), stand.held(), stand.count()) == ({"a": 5}, [], 0)


def test_what_is_held_survives_a_crash_and_is_released_after_it(stand: Stand) -> None:
    stand.apply(1, ([], [], [bad(1, "a")]))
    stand.replica.connection.close()
    stand.replica = Replica.open(stand.path, ("all",), BUILT_IN)
    stand.apply(2, ([line(2, "a")], []))
    assert (stand.amounts(), stand.held()) == ({"a": 1}, [])


def test_a_transaction_that_breaks_off_holds_nothing(stand: Stand) -> None:
    def broken() -> Iterator[RowBatch]:
        yield [], [], [bad(1, "a")]
        raise OSError("broken off")

    with pytest.raises(OSError, match="broken off"):
        stand.replica.apply(
            PRICE, epoch=EPOCH, position=1, digest=EMPTY, head_seq=1, batches=broken(), replace=False, wall_ms=0
        )
    assert stand.held() == []
    stand.apply(1, ([line(1, "a")], []))
    assert json.dumps(stand.amounts()) == '{"a": 1}'
