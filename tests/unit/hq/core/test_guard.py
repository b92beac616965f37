"""What a feed may delete without being forced, as a table."""

import pytest

from hq.core.changes import Change
from hq.core.guard import Deletions, Guard, dropped_choice, judge, only_choice
from storelink.contract.contexts import PRICE, PRODUCT, Key


@pytest.mark.parametrize(
    ("held", "named", "deleted", "expected"),
    [
        (49_690, 2, 49_688, "share"),  # the night on which a feed of two rows deleted a catalog
        (49_690, 49_690, 0, None),
        (0, 0, 0, None),
        (0, 5, 0, None),
        (1, 0, 1, "empty"),
        (49_690, 0, 49_690, "empty"),
        (0, 0, 0, None),  # an empty feed for an empty stream
        (1000, 979, 21, None),  # more than a few, but of many
        (1000, 900, 100, None),  # just 10 %
        (1000, 899, 101, "share"),
        (200, 180, 20, None),
        (200, 179, 21, "share"),
        (30, 10, 20, "half"),  # few, but most of them
        (23, 11, 12, "half"),
        (22, 11, 11, None),  # just half
        (21, 10, 11, "half"),
        (10, 1, 9, None),  # nobody is asked about a catalog of ten rows
        (20, 10, 10, None),
        (1000, 1000, 1000, "share"),  # other rows altogether
        (15, 30, 15, None),
    ],
)
def test_a_feed_is_stopped_by_what_it_deletes_of_what_is_there(
    held: int, named: int, deleted: int, expected: Guard | None
) -> None:
    assert judge(Deletions(held, named, deleted)) == expected


def test_a_choice_that_dies_out_stops_a_feed_whatever_its_share() -> None:
    assert judge(Deletions(10_000, 9_979, 21, "kind=promotion")) == "choice"
    assert judge(Deletions(10_000, 9_979, 21)) is None


def keys(kind: str, count: int) -> list[Key]:
    return [(str(i), kind) for i in range(count)]


def gone(of: list[Key]) -> list[Change]:
    return [Change(key, None) for key in of]


NEW_PROMOTION = Change(("new", "promotion"), ("EUR", "[[0,null,1]]"))


@pytest.mark.parametrize(
    ("held", "changes", "expected"),
    [
        (keys("regular", 999) + keys("promotion", 21), gone(keys("promotion", 21)), "kind=promotion"),
        (keys("regular", 999) + keys("promotion", 20), gone(keys("promotion", 20)), ""),
        (keys("regular", 999) + keys("promotion", 22), gone(keys("promotion", 21)), ""),
        (keys("regular", 999) + keys("promotion", 21), [*gone(keys("promotion", 21)), NEW_PROMOTION], ""),
        (keys("regular", 999), [], ""),
    ],
)
def test_a_choice_dies_out_when_all_go_and_none_comes(held: list[Key], changes: list[Change], expected: str) -> None:
    assert dropped_choice(PRICE, held, changes) == expected


def test_a_key_without_choices_does_not_die_out() -> None:
    held: list[Key] = [(str(i),) for i in range(99)]
    assert dropped_choice(PRODUCT, held, gone(held)) == ""


def test_the_hint_names_the_choice_that_the_feed_has() -> None:
    held = keys("regular", 5) + keys("promotion", 3)
    assert only_choice(PRICE, held, gone(keys("promotion", 3))) == "kind=regular"
    assert only_choice(PRICE, held, gone(keys("regular", 5))) == "kind=promotion"
    assert only_choice(PRICE, held, [*gone(keys("promotion", 3)), NEW_PROMOTION]) == ""
    assert only_choice(PRICE, keys("regular", 5), gone(keys("regular", 2))) == "", "it would delete them all the same"
