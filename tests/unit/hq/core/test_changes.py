"""Sequencing: what one change set does to rows, seqs and digest."""

import json

import pytest

from hq.core.changes import Change, ChangeSet, Stored, Tip, check_as_a_store_would, sequence
from storelink.contract.contexts import BUILT_IN, PRODUCT, Key, Row
from storelink.contract.errors import ContractViolation
from storelink.contract.rows import EMPTY, canonical, row_hash, to_hex
from storelink.contract.streams import Stream

BLANK = (None,) * 10
STREAM = Stream.parse("product/all", BUILT_IN)


def product(gtin: str | None, name: str | None) -> Row:
    return (gtin, name, *BLANK)


def test_changes_get_contiguous_seqs_and_only_the_last_ends_the_set() -> None:
    made = sequence(
        PRODUCT, Tip(7, EMPTY, 0), [Change(("a",), product("1", "A")), Change(("b",), product(None, "B"))], {}, 5
    )
    assert [(e.seq, e.at_ms, e.op, e.key, e.changed, e.prev_seq, e.ends) for e in made.events] == [
        (8, 5, "upsert", '["a"]', '["gtin","name"]', 0, 0),
        (9, 5, "upsert", '["b"]', '["name"]', 0, 1),
    ]
    assert made.events[0].row == canonical((8, "a", *product("1", "A"))).decode()
    assert (made.head_seq, made.count) == (9, 2)
    assert made.digest == to_hex(row_hash((8, "a", *product("1", "A"))) + row_hash((9, "b", *product(None, "B"))))


def test_what_is_already_so_emits_nothing() -> None:
    before: dict[Key, Stored] = {
        ("a",): Stored((3, "a", *product("1", "A")), False),
        ("gone",): Stored((4, "gone"), True),
    }
    changes = [Change(("a",), product("1", "A")), Change(("gone",), None), Change(("never",), None)]
    assert sequence(PRODUCT, Tip(4, EMPTY, 1), changes, before, 5) == ChangeSet([], [], 4, EMPTY, 1)


def test_a_deletion_takes_the_row_out_of_the_digest_and_leaves_a_tombstone() -> None:
    row: Row = (1, "a", *product("1", "A"))
    made = sequence(PRODUCT, Tip(1, to_hex(row_hash(row)), 1), [Change(("a",), None)], {("a",): Stored(row, False)}, 5)
    assert [(e.op, e.row, e.changed, e.prev_seq, e.digest) for e in made.events] == [
        ("delete", '[2,"a"]', "[]", 1, EMPTY)
    ]
    assert (made.rows, made.count, made.digest) == ([Stored((2, "a"), True)], 0, EMPTY)


def test_a_deleted_entity_that_comes_back_names_its_tombstone() -> None:
    before: dict[Key, Stored] = {("a",): Stored((2, "a"), True)}
    made = sequence(PRODUCT, Tip(2, EMPTY, 0), [Change(("a",), product("1", None))], before, 5)
    assert [(e.prev_seq, json.loads(e.changed)) for e in made.events] == [(2, ["gtin"])]


def test_an_entity_twice_in_one_set_is_two_events_and_one_row() -> None:
    made = sequence(
        PRODUCT, Tip(0, EMPTY, 0), [Change(("a",), product("1", None)), Change(("a",), product("2", None))], {}, 5
    )
    assert [(e.seq, e.prev_seq) for e in made.events] == [(1, 0), (2, 1)]
    assert made.rows == [Stored((2, "a", *product("2", None)), False)]
    assert made.digest == to_hex(row_hash((2, "a", *product("2", None))))


@pytest.mark.parametrize(
    "values",
    [
        product("x" * 65, None),
        product(None, "a\0b"),
        product(None, "literally \\u0000"),
        (None, *("€" * 4000,) * 6, *(None,) * 5),
    ],
)
def test_what_no_store_would_accept_never_gets_into_the_master(values: Row) -> None:
    made = sequence(PRODUCT, Tip(0, EMPTY, 0), [Change(("a",), values)], {}, 5)
    with pytest.raises(ContractViolation):
        check_as_a_store_would(STREAM, made)
