"""A price feed, however odd, is refused or applied; and applied once, it changes nothing the second time."""

from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from contract import schedule
from contract.contexts import PRICE, Key, Row
from hq.core.feed import FeedRow, diff
from hq.errors import BadFeed

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


@settings(max_examples=400, deadline=None)
@given(rows, rows)
def test_the_same_feed_again_changes_nothing(earlier: list[Line], feed: list[Line]) -> None:
    before = imported(earlier, {}, NOW - 60)
    assume(before is not None)
    assert before is not None
    after = imported(feed, before, NOW)
    assume(after is not None)
    assert after is not None
    assert imported(feed, after, NOW) == after


@settings(max_examples=400, deadline=None)
@given(rows, st.integers(0, 15))
def test_prices_without_overlap_are_what_the_feed_says(feed: list[Line], minute: int) -> None:
    """Dated steps that do not touch each other are each in force for just their time."""
    dated = sorted((s, e, a) for a, s, e in feed if s is not None and e is not None and s < e and e > 0)
    assume(dated and all(a[1] <= b[0] for a, b in pairwise(dated)))
    after = imported([(a, s, e) for s, e, a in dated], {}, NOW)
    assert after is not None
    steps = schedule.load(str(after["1", "regular"][4]))
    at = NOW + minute * 60
    expected = [int(float(a) * 100) for s, e, a in dated if s <= minute < e]
    found = schedule.at(steps, at)
    assert ([] if found is None else [found.amount_minor]) == expected


@settings(max_examples=400, deadline=None)
@given(rows, st.integers(0, 12))
def test_a_nightly_feed_changes_nothing_on_a_later_night(feed: list[Line], minute: int) -> None:
    after = imported(feed, {}, NOW)
    assume(after is not None)
    assert imported(feed, after or {}, NOW + minute * 60) == after
