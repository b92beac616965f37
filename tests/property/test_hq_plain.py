"""The short ways of an import lead where the long way leads, or nowhere."""

from __future__ import annotations

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from contract.contexts import PRICE, PRODUCT, Key, Row
from contract.schedule import Step, dump
from hq.core import edits, feed
from hq.core.feed import Diff, FeedRow, diff
from hq.core.plain import PlainPrice, PlainText
from hq.errors import BadFeed

NOW = 1_764_000_000
NAMES = PRODUCT.value_names

TEXTS = ("", " ", "Milk", " Milk ", "Crème", "a\tb", "a\x00b", "a\\u0000", "x" * 70, "y" * 4_001)
cells = st.none() | st.sampled_from(TEXTS)
rows = st.dictionaries(st.sampled_from([*NAMES[:6], "attributes"]), cells, max_size=7)
stored_values = st.tuples(*(st.sampled_from((None, "Milk", "Crème", "x")) for _ in NAMES[:-1]), st.just(None))


@given(fields=rows, old=st.none() | stored_values)
def test_values_read_at_once_are_those_of_the_rule(fields: dict[str, str | None], old: Row | None) -> None:
    plain = PlainText(PRODUCT, tuple(fields))
    short = plain.values(fields, old)
    same = old is not None and plain.is_same(fields, (1, "sku", *old))
    event(f"short {short is not None}, same {same}")
    if short is not None:
        assert short == edits.edited(PRODUCT, fields, old, NOW)
    if same:
        assert old == edits.edited(PRODUCT, fields, old, NOW)


amounts = st.sampled_from(("1.99", "2", " 2.00 ", "2.5", "1.999", "x", "", None, "-1"))
times = st.sampled_from((None, "", "2026-12-01T00:00:00Z"))
currencies = st.sampled_from(("EUR", "USD", "", None))
priced = st.fixed_dictionaries(
    {"amount": amounts}, optional={"currency": currencies, "starts_at": times, "ends_at": times}
)
steps = st.sampled_from(
    (
        (Step(NOW - 9, None, 199),), (Step(NOW + 9, None, 199),), (Step(NOW - 9, NOW + 9, 199),),
        (Step(NOW - 9, NOW + 9, 199), Step(NOW + 9, None, 200)), (Step(0, None, 200),), (Step(NOW, None, 250),),
    )
)  # fmt: skip


@given(fields=priced, held=steps)
@example(fields={"amount": "1.99"}, held=(Step(NOW - 9, None, 199),))
def test_a_price_that_is_the_same_at_once_is_the_same_by_the_rule(
    fields: dict[str, str | None], held: tuple[Step, ...]
) -> None:
    old: Row = ("EUR", dump(held))
    same = PlainPrice(PRICE, NOW).is_same(fields, (1, "sku", "regular", *old))
    event(f"same {same}")
    if same:
        assert edits.edited(PRICE, fields, old, NOW) == old


skus = st.sampled_from(("1", " 1", "2", "3", "", "é"))
feeds = st.lists(st.fixed_dictionaries({"sku": skus}, optional=dict.fromkeys(NAMES[:4], cells)), max_size=5)


@given(feed_rows=feeds, held=st.dictionaries(st.sampled_from("123"), stored_values))
def test_a_feed_changes_the_same_with_and_without_the_short_ways(
    feed_rows: list[dict[str, str | None]], held: dict[str, Row]
) -> None:
    """Errors too, to the letter."""

    def outcome() -> Diff | str:
        current: dict[Key, Row] = {(sku,): (1, sku, *values) for sku, values in held.items()}
        try:
            listed = [FeedRow(line, fields) for line, fields in enumerate(feed_rows, start=2)]
            return diff(PRODUCT, "feed.csv", listed, current, NOW, full=True)
        except BadFeed as error:
            return str(error)

    short = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed._Reading, "is_same", lambda *_: False)
        patch.setattr(PlainText, "values", lambda *_: None)
        assert outcome() == short
