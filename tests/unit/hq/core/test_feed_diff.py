"""A feed against the master: only what differs, only once, and always naming the row."""

import json
import re
from datetime import UTC, datetime

import pytest

from hq.core.changes import Change
from hq.core.feed_diff import Diff, FeedRow, diff
from hq.errors import BadFeed
from storelink.contract.contexts import PRICE, PRODUCT, Key, Row

NOW = 1_800_000_000
DAY = 86_400


def iso(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def products(*rows: dict[str, str | None], current: dict[Key, Row] | None = None, full: bool = False) -> Diff:
    feed = [FeedRow(line, row) for line, row in enumerate(rows, start=2)]
    return diff(PRODUCT, "f.csv", feed, current or {}, NOW, full=full)


def prices(rows: list[tuple[str, str, str]], schedule: str | None, now: int = NOW) -> tuple[Diff, str | None]:
    """Rows of (amount, starts_at, ends_at) for one price line; returns the diff and the schedule after it."""
    feed = [
        FeedRow(line, {"sku": "1", "currency": "EUR", "amount": a, "starts_at": s, "ends_at": e})
        for line, (a, s, e) in enumerate(rows, start=2)
    ]
    current: dict[Key, Row] = {("1", "regular"): (1, "1", "regular", "EUR", schedule)} if schedule else {}
    found = diff(PRICE, "f.csv", feed, current, now, full=False)
    values = found.changes[0].values if found.changes else None
    return found, str(values[1]) if values else schedule


def test_a_feed_is_the_few_changes_that_it_contains() -> None:
    blank = (None,) * 10
    current: dict[Key, Row] = {(k,): (1, k, None, n, *blank) for k, n in (("a", "A"), ("b", "B"), ("c", "C"))}
    rows: list[dict[str, str | None]] = [
        {"sku": "a", "name": "A"},
        {"sku": "b", "name": "Z"},
        {"sku": "d", "name": "D"},
    ]
    expected = [Change(("b",), (None, "Z", *blank)), Change(("d",), (None, "D", *blank))]
    assert products(*rows, current=current) == Diff(expected, rows=3, new=1, changed=1, unchanged=1)
    expected.append(Change(("c",), None))
    assert products(*rows, current=current, full=True) == Diff(
        expected, rows=3, new=1, changed=1, unchanged=1, deleted=1
    )


def test_an_entity_twice_is_refused_with_both_lines() -> None:
    with pytest.raises(BadFeed, match=r"f\.csv, line 3, field sku: 'a' is in line 2 already"):
        products({"sku": "a"}, {"sku": " a"})


def test_a_bad_row_names_file_line_and_field() -> None:
    with pytest.raises(BadFeed) as caught:
        prices([("1", "", ""), ("x", iso(NOW + 5), "")], None)
    assert (caught.value.file, caught.value.line, caught.value.field) == ("f.csv", 3, "amount")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (("1.999", "", ""), "field amount: '1.999' has 3 digits after the point; EUR has 2"),
        (("1.00", iso(NOW + 2 * DAY), iso(NOW + DAY)), "field ends_at: must be after starts_at, 2027-01-17T08:00:00Z"),
        (("1.00", iso(NOW + 6 * DAY), iso(NOW + 8 * DAY)), "field starts_at: begins before the price in line 2 ends"),
        (("1.00", iso(NOW + 4 * DAY), iso(NOW + 6 * DAY)), "field starts_at: begins before the price in line 3 ends"),
    ],
)
def test_a_price_that_does_not_fit_is_refused_with_its_line(row: tuple[str, str, str], says: str) -> None:
    line = 2 if "line 3" in says else 3
    with pytest.raises(BadFeed, match=f"line {line}, {re.escape(says)}"):
        prices([("2.00", iso(NOW + 5 * DAY), iso(NOW + 7 * DAY)), row], None)


def test_the_same_start_twice_for_one_price_line_is_refused() -> None:
    with pytest.raises(BadFeed, match=r"line 3, field starts_at: line 2 has"):
        prices([("1", "", ""), ("2", "", "")], None)


def test_a_price_that_is_over_is_counted_and_left_alone() -> None:
    found, schedule = prices([("1.00", iso(NOW - 9), iso(NOW - 5))], "[[5,null,100]]")
    assert (found.expired, found.unchanged, found.changes, schedule) == (1, 1, [], "[[5,null,100]]")
    assert prices([("1.00", iso(NOW - 9), iso(NOW - 5))], None)[0].changes == []


def test_a_feed_with_a_base_price_and_a_coming_one_changes_nothing_on_any_later_day() -> None:
    """Imported nightly: the undated row must not fight the dated one once that one runs."""
    rows = [("1.00", "", ""), ("0.80", iso(NOW + DAY), iso(NOW + 2 * DAY)), ("1.20", iso(NOW + 3 * DAY), "")]
    _, schedule = prices(rows, None)
    assert json.loads(str(schedule)) == [
        [NOW, NOW + DAY, 100],
        [NOW + DAY, NOW + 2 * DAY, 80],
        [NOW + 2 * DAY, NOW + 3 * DAY, 100],
        [NOW + 3 * DAY, None, 120],
    ]
    for later in range(0, 5 * DAY, DAY // 4):
        assert prices(rows, schedule, NOW + later)[0].changes == [], later


def test_a_first_import_while_a_dated_price_runs_has_the_base_price_after_it() -> None:
    rows = [("1.00", "", ""), ("0.80", iso(NOW - DAY), iso(NOW + DAY))]
    assert json.loads(str(prices(rows, None)[1])) == [[NOW - DAY, NOW + DAY, 80], [NOW + DAY, None, 100]]


def test_the_base_price_is_back_after_a_later_dated_price_too() -> None:
    """It ended where the next dated price began, so that nothing was sold after that (found by the property test)."""
    rows = [("1.00", "", ""), ("0.80", iso(NOW), iso(NOW + DAY)), ("0.90", iso(NOW + 2 * DAY), iso(NOW + 3 * DAY))]
    assert json.loads(str(prices(rows, None)[1])) == [
        [NOW, NOW + DAY, 80],
        [NOW + DAY, NOW + 2 * DAY, 100],
        [NOW + 2 * DAY, NOW + 3 * DAY, 90],
        [NOW + 3 * DAY, None, 100],
    ]
