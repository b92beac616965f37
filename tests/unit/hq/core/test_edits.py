"""From fields to values: partial updates, strict types, schedules."""

import json

import pytest

from hq.core.edits import check_names, edited, fields_of, key_of
from hq.errors import BadField
from storelink.contract.contexts import PRICE, PRODUCT

NOW = 1_800_000_000
DAY = 86_400
OLD = ("123", "Bananas", None, "X", *(None,) * 8)


def price(amount: str, current: tuple[str, str] | None = None, now: int = NOW, **fields: str) -> list[list[int | None]]:
    values = edited(PRICE, {"sku": "1", "currency": "EUR", "amount": amount, **fields}, current, now)
    assert values[0] == fields.get("currency", "EUR")
    return json.loads(str(values[1]))  # type: ignore[no-any-return]


def iso(at: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).isoformat()


def test_fields_that_are_not_named_stay_and_an_empty_value_clears() -> None:
    assert edited(PRODUCT, {"sku": "1", "name": " Plums ", "brand": ""}, OLD, NOW) == ("123", "Plums", *(None,) * 10)


def test_the_fields_of_a_price_name_a_step_not_a_schedule() -> None:
    assert fields_of(PRICE) == ("sku", "kind", "currency", "amount", "starts_at", "ends_at")


def test_a_key_has_its_default_and_its_limits() -> None:
    assert key_of(PRICE, {"sku": " 4011 "}) == ("4011", "regular")
    for fields, name in (
        ({}, "sku"),
        ({"sku": ""}, "sku"),
        ({"sku": "x" * 65}, "sku"),
        ({"sku": "a\tb"}, "sku"),
        ({"sku": "1", "kind": "gift"}, "kind"),
        ({"sku": "\ud800"}, "sku"),
    ):
        with pytest.raises(BadField) as caught:
            key_of(PRICE, fields)
        assert caught.value.field == name


def test_an_unknown_field_is_named_with_the_one_that_was_meant() -> None:
    with pytest.raises(BadField) as caught:
        check_names(PRODUCT, ["sku", "brnd"])
    assert (caught.value.field, caught.value.hint.split("?")[0]) == ("brnd", "did you mean brand")


def test_equal_attributes_have_one_spelling() -> None:
    values = edited(PRODUCT, {"attributes": '{"b": 1, "a": {"d": 2, "c": [1.50]}}'}, None, NOW)
    assert values[-1] == '{"a":{"c":[1.5],"d":2},"b":1}'


@pytest.mark.parametrize("text", ["[1]", "1", "{", '{"a":1,"a":2}', '{"a":NaN}', '{"a":1e999}', '{"a":"\\u0000"}'])
def test_attributes_that_a_store_would_refuse_are_refused(text: str) -> None:
    with pytest.raises(BadField, match="attributes"):
        edited(PRODUCT, {"attributes": text}, None, NOW)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"amount": ""}, "amount"),
        ({"amount": "x"}, "amount"),
        ({"amount": "-1"}, "amount"),
        ({"amount": "1", "currency": "EUX"}, "currency"),
        ({"amount": "1", "currency": ""}, "currency"),
        ({"amount": "1", "starts_at": "soon"}, "starts_at"),
        ({"amount": "1", "ends_at": "2020-01-01"}, "ends_at"),
        ({"amount": "1", "starts_at": "2030-01-02", "ends_at": "2030-01-01"}, "ends_at"),
    ],
)
def test_a_wrong_price_names_its_field(fields: dict[str, str], field: str) -> None:
    with pytest.raises(BadField) as caught:
        edited(PRICE, {"sku": "1", "currency": "EUR"} | fields, None, NOW)
    assert caught.value.field == field


def test_a_price_is_from_now_on_and_the_same_again_is_no_change() -> None:
    assert price("1.99") == [[NOW, None, 199]]
    running = ("EUR", f"[[{NOW},null,199]]")
    assert edited(PRICE, {"amount": "1.99"}, running, NOW + DAY) == running
    assert price("2.49", running, NOW + DAY) == [[NOW, NOW + DAY, 199], [NOW + DAY, None, 249]]


def test_steps_that_are_over_are_dropped_only_when_something_changes() -> None:
    """A feed with the running step's own start, read again after an older step was over, once was an event."""
    old = ("EUR", f"[[{NOW - 9000},{NOW - 5000},100],[{NOW - 5000},null,199]]")
    assert edited(PRICE, {"amount": "1.99", "starts_at": iso(NOW - 5000)}, old, NOW) == old
    assert price("2.49", old) == [[NOW - 5000, NOW, 199], [NOW, None, 249]]


def test_a_till_whose_clock_is_late_still_finds_the_price_that_was_corrected_in_a_hurry() -> None:
    once = price("2.49", ("EUR", f"[[{NOW - 9},null,199]]"))
    twice = price("2.39", ("EUR", json.dumps(once, separators=(",", ":"))), NOW + 2)
    assert twice == [[NOW - 9, NOW, 199], [NOW, NOW + 2, 249], [NOW + 2, None, 239]]
    assert price("2.29", ("EUR", json.dumps(twice, separators=(",", ":"))), NOW + 9000)[0] == [NOW + 2, NOW + 9000, 239]


def test_a_price_corrected_without_end_stays_within_its_steps() -> None:
    current: tuple[str, str] | None = None
    for second in range(200):
        steps = price(f"{second + 1}", current, NOW + second)
        current = ("EUR", json.dumps(steps, separators=(",", ":")))
    assert (len(steps), steps[-1]) == (64, [NOW + 199, None, 20000])


def test_a_dated_price_is_a_step_and_future_steps_stay() -> None:
    running = ("EUR", f"[[{NOW},null,199]]")
    steps = price("1.49", running, starts_at=iso(NOW + DAY), ends_at=iso(NOW + 2 * DAY))
    assert steps == [[NOW, NOW + DAY, 199], [NOW + DAY, NOW + 2 * DAY, 149], [NOW + 2 * DAY, None, 199]]
    again = ("EUR", json.dumps(steps, separators=(",", ":")))
    assert price("1.89", again, NOW + 5) == [[NOW, NOW + 5, 199], [NOW + 5, NOW + DAY, 189], *steps[1:]]


@pytest.mark.parametrize(
    ("starts", "ends", "says"),
    [
        (3, 5, "overlaps the one from 2027-01-17T08:00:00Z to 2027-01-19T08:00:00Z"),
        (1, 3, "overlaps the one from 2027-01-17T08:00:00Z to 2027-01-19T08:00:00Z"),
        (3, 2, "ends_at: must be after starts_at, 2027-01-18T08:00:00Z"),
        (-3, -1, "ends_at: the step is already over, at 2027-01-14T08:00:00Z"),
    ],
)
def test_a_step_that_does_not_fit_is_refused_with_the_one_that_it_meets(starts: int, ends: int, says: str) -> None:
    promotion = ("EUR", f"[[{NOW + 2 * DAY},{NOW + 4 * DAY},149]]")
    with pytest.raises(BadField, match=says):
        price("1.29", promotion, starts_at=iso(NOW + starts * DAY), ends_at=iso(NOW + ends * DAY))


def test_another_currency_takes_effect_at_once_or_not_at_all() -> None:
    assert price("3.00", ("EUR", f"[[{NOW - 9},null,199]]"), currency="USD") == [[NOW, None, 300]]
    with pytest.raises(BadField, match="at once"):
        price("3.00", ("EUR", f"[[{NOW},null,199]]"), currency="USD", starts_at=iso(NOW + 1))
    with pytest.raises(BadField, match="coming prices"):
        price("3.00", ("EUR", f"[[{NOW + 1},null,199]]"), currency="USD")
