"""A feed compared by whole columns and the same feed looked at row by row: the same changes, or the same complaint."""

from collections.abc import Callable, Iterable

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from hq.core import edits
from hq.core.changes import Tip, check_as_a_store_would, sequence
from hq.core.feed_diff import Diff, FeedRow, diff
from hq.core.feed_table import Table, compare_columns
from hq.errors import BadFeed
from hq.feeds.files import csv_feed, csv_rows
from storelink.contract.contexts import PRICE, PRODUCT, Context, Key, Row
from storelink.contract.streams import Stream

NOW = 1_800_000_000
EMPTY = "0" * 32

skus = st.one_of(st.integers(1, 12).map(str), st.sampled_from(["1 ", "", " ", "é", "x" * 129, "a\tb", "\ud83d"]))
cells = {
    "sku": skus,
    "gtin": st.sampled_from(["", "4006381333931", "a\nb", "9" * 200]),
    "name": st.sampled_from(
        ["", "A", "B", " A", "Müsli", "two\nlines", "nul\0", "\\u0000", "\ud83d", "\ude00", "x" * 9999]
    ),
    "status": st.sampled_from(["", "active", "\u00a0", "None"]),
    "attributes": st.sampled_from(["", '{"b":1,"a":2}', '{"a":2,"b":1}', "[1]", "{", '{"a":1e999}']),
    "kind": st.sampled_from(["", "regular", "promotion ", "weekly"]),
    "currency": st.sampled_from(["EUR", "EUR ", "USD", "JPY", "", "eur", "XXX"]),
    "amount": st.sampled_from(["1", "1.00", " 2", "0.5", "", "-1", "1,5", "1.234"]),
    "starts_at": st.sampled_from(["", " ", "2027-01-15", "2027-02-01", "soon"]),
    "ends_at": st.sampled_from(["", "2027-03-01", "2026-01-01"]),
}
usual = {
    "sku": st.integers(1, 12).map(str),
    "gtin": st.sampled_from(["", "4006381333931"]),
    "name": st.sampled_from(["", "A", "B", " A", "Müsli", "two\nlines"]),
    "status": st.sampled_from(["", "active"]),
    "attributes": st.sampled_from(["", '{"b":1,"a":2}', '{"a":2,"b":1}']),
    "kind": st.sampled_from(["", "promotion "]),
    "currency": st.just("EUR"),
    "amount": st.sampled_from(["1", "1.00", " 2", "0.5"]),
    "starts_at": st.just(""),
    "ends_at": st.just(""),
}


@st.composite
def tables(draw: st.DrawFn, context: Context) -> Table:
    """Mostly good rows; now and then one with anything at all in it."""
    names = draw(
        st.lists(st.sampled_from([f for f in edits.fields_of(context)[1:] if f in cells]), unique=True).filter(bool)
    )
    names = draw(st.permutations(["sku", *({"amount", "currency", *names} if context is PRICE else names)]))
    currency = st.just(draw(st.sampled_from(["EUR", "EUR", "USD"])))
    good = st.tuples(*(currency if name == "currency" else usual[name] for name in names))
    odd = st.tuples(*(cells[name] for name in names))
    rows = draw(st.lists(good, max_size=8, unique_by=lambda row: row[names.index("sku")]))
    rows += draw(st.one_of(st.just([]), st.lists(odd, max_size=1), st.lists(good, max_size=1)))
    return Table(names, draw(st.permutations(rows)), 2)


def outcome(
    context: Context, feed: Table, current: dict[Key, Row], now: int, *, by_row: bool
) -> Diff | tuple[object, ...]:
    try:
        found = diff(context, "f.csv", list(feed) if by_row else feed, current, now, full=True)
    except BadFeed as error:
        return error.line, error.field, str(error), error.hint
    return found


@pytest.mark.parametrize("context", [PRODUCT, PRICE], ids=lambda context: context.name)
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_columns_and_rows_agree(context: Context, data: st.DataObject) -> None:
    """Feed after feed, and each of them once more; and what columns let through, a store accepts."""
    current: dict[Key, Row] = {}
    for night in range(3):
        feed, now = data.draw(tables(context)), NOW + night * 60
        for _ in range(2):
            event(f"by columns: {compare_columns(context, feed, current, now) is not None}")
            found = outcome(context, feed, current, now, by_row=False)
            assert found == outcome(context, feed, current, now, by_row=True)
            if isinstance(found, Diff):
                made = sequence(context, Tip(0, EMPTY, 0), found.changes, {}, now * 1000)
                check_as_a_store_would(Stream(context, "all"), made)
                for key, values in found.changes:
                    current.pop(key, None)
                    if values is not None:
                        current[key] = (1, *key, *values)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["1", "A", "Mü", "two\nlines", '"', "", "a,b"]), max_size=3), max_size=5),
    st.data(),
)
def test_a_csv_read_at_once_is_what_it_is_row_by_row(lines: list[list[str]], data: st.DataObject) -> None:
    """Blank lines, line ends, quotes and rows that are too short or too long included."""
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    quote = data.draw(st.sampled_from(['"{}"', "{}"]))
    text = end.join(",".join(quote.format(cell) for cell in cells) for cells in [["sku", "name"], *lines])
    assert read(lambda: csv_feed(text.encode(), "f.csv", PRODUCT, {})) == read(
        lambda: csv_rows(text, True, "f.csv", PRODUCT, {})
    )


def read(reading: Callable[[], Iterable[FeedRow]]) -> list[FeedRow] | str:
    try:
        return list(reading())
    except BadFeed as error:
        return str(error)


def test_a_usual_feed_is_compared_by_columns() -> None:
    """Otherwise the agreement above would say nothing."""
    products = Table(["sku", "name"], [["1", "Müsli"], ["2", ""]], 2)
    assert compare_columns(PRODUCT, products, {}, NOW) is not None
    prices = Table(["sku", "amount", "currency"], [["1", "1.00", "EUR"], ["2", "2", "EUR"]], 2)
    assert compare_columns(PRICE, prices, {}, NOW) is not None
