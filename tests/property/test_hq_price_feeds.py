"""A price feed, however odd, is refused or applied; and applied once, it changes nothing the second time."""

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from hq.core.feed_diff import FeedRow, diff
from hq.errors import BadFeed
from storelink.contract import schedule
from storelink.contract.contexts import PRICE, Key, Row

Line = tuple[str, int | None, int | None]

NOW = 1_800_000_000

instants = st.one_of(st.none(), st.integers(-5, 10))
amounts = st.sampled_from(["1.00", "2.00", "3.00"])
rows = st.lists(st.tuples(amounts, instants, instants), min_size=1, max_size=4)


def iso(at: int | None) -> str:
    return "" if at is None else datetime.fromtimestamp(NOW + at * 60, UTC).isoformat()


def imported(feed: list[Line], current: dict[Key, Row], now: int) -> dict[Key, Row] | None:
    """The master after the import; None if the feed was refused."""
    lines = [
        FeedRow(n, {"sku": "1", "currency": "EUR", "amount": a, "starts_at": iso(s), "ends_at": iso(e)})
        for n, (a, s, e) in enumerate(feed)
    ]
    try:
        found = diff(PRICE, "f", lines, current, now, full=False)
    except BadFeed:
        return None
    after = dict(current)
    for key, values in found.changes:
        assert values is not None
        schedule.load(str(values[1]))
        after[key] = (1, *key, *values)
    return after


def accepted(lines: list[Line], current: dict[Key, Row], now: int) -> tuple[list[Line], dict[Key, Row]]:
    """The feed without the lines for which it would be refused, and the master after it."""
    feed: list[Line] = []
    after = current
    for line in lines:
        found = imported([*feed, line], current, now)
        if found is not None:
            feed, after = [*feed, line], found
    return feed, after


@settings(max_examples=400, deadline=None)
@given(rows, rows)
def test_the_same_feed_again_changes_nothing(earlier: list[Line], lines: list[Line]) -> None:
    _, before = accepted(earlier, {}, NOW - 60)
    feed, after = accepted(lines, before, NOW)
    assert imported(feed, after, NOW) == after


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), amounts), max_size=5), st.integers(0, 20))
def test_prices_without_overlap_are_what_the_feed_says(spans: list[tuple[int, int, str]], minute: int) -> None:
    """Dated steps that do not overlap (given as gap, length, amount) are each in force for just their time."""
    feed: list[tuple[str, int, int]] = []
    end = -5
    for gap, length, amount in spans:
        feed.append((amount, end + gap, end + gap + length))
        end += gap + length
    after = imported(list(feed), {}, NOW)
    assert after is not None
    steps = schedule.load(str(after["1", "regular"][4])) if after else ()
    expected = [int(float(a) * 100) for a, s, e in feed if s <= minute < e]
    found = schedule.at(steps, NOW + minute * 60)
    assert ([] if found is None else [found.amount_minor]) == expected


@settings(max_examples=400, deadline=None)
@given(rows, st.integers(0, 12))
def test_a_nightly_feed_changes_nothing_on_a_later_night(lines: list[Line], minute: int) -> None:
    feed, after = accepted(lines, {}, NOW)
    assert imported(feed, after, NOW + minute * 60) == after
