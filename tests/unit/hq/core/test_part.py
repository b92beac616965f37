"""The part of a stream that a feed speaks for: which keys lie inside, and what names none."""

import pytest

from hq.core.part import ALL_ROWS, Part, part_of
from hq.errors import BadField
from storelink.contract.contexts import PRICE, Key


def test_values_of_one_column_widen_and_those_of_another_narrow() -> None:
    part = part_of(PRICE, {"kind": ["promotion", "clearance"], "sku": " 1"})
    assert part == Part(("sku", "kind"), {0: frozenset({"1"}), 1: frozenset({"promotion", "clearance"})})
    assert str(part) == "kind=clearance or promotion sku=1"
    found: dict[Key, str | None] = {
        ("1", "promotion"): None,
        ("1", "clearance"): None,
        ("1", "regular"): "kind",
        ("2", "promotion"): "sku",
    }
    assert {key: part.misfit(key) for key in found} == found
    assert part.of(list(found)) == [("1", "promotion"), ("1", "clearance")]
    assert not part.holds_all(list(found))
    assert part.holds_all(part.of(list(found)))
    assert not ALL_ROWS
    assert (ALL_ROWS.of(list(found)), ALL_ROWS.holds_all(list(found))) == (list(found), True)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("amount", "1", "'amount' is no key column of price"),
        ("currency", "EUR", "'currency' is no key column of price"),
        ("kynd", "regular", "'kynd' is no key column of price"),
        ("kind", "", "kind has no value"),
        ("kind", "weekly", "kind 'weekly' must be one of regular, promotion, clearance"),
    ],
)
def test_what_names_no_part_is_refused_with_the_key_columns(column: str, value: str, says: str) -> None:
    with pytest.raises(BadField) as caught:
        part_of(PRICE, {column: value})
    assert str(caught.value) == f"where: {says}"
    assert caught.value.hint == "key columns: sku, kind"
