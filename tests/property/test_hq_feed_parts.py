"""What a feed deletes: nothing unless it speaks for a whole, and then nothing outside of what it speaks for."""

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from hq.core.feed_diff import diff
from hq.core.feed_table import Table, compare_columns
from hq.core.part import part_of
from hq.errors import BadFeed
from storelink.contract.contexts import PRICE, Key, Row

NOW = 1_800_000_000
KINDS = ("regular", "promotion", "clearance")

lines = st.tuples(st.integers(1, 6).map(str), st.sampled_from(KINDS))
stored = st.dictionaries(lines, st.integers(1, 3), max_size=14).map(
    lambda found: {key: (1, *key, "EUR", f"[[5,null,{amount}00]]") for key, amount in found.items()}
)


@st.composite
def feeds(draw: st.DrawFn) -> Table:
    """With or without the column `kind`; mostly each line once, mostly good amounts, now and then a dated price."""
    kinds = draw(st.sampled_from([KINDS, ("regular",), ("promotion", "clearance")]))
    keys = draw(st.lists(st.tuples(st.integers(1, 8).map(str), st.sampled_from(kinds)), max_size=12, unique=True))
    names = draw(st.permutations(["sku", "kind", "amount", "currency", "starts_at"]))
    rows = []
    for sku, kind in keys:
        amount = draw(st.sampled_from(["1", "2.00", "3", "3", "3", "x"]))
        starts_at = draw(st.sampled_from(["", "", "", "", "2027-02-01"]))
        cells = {"sku": sku, "kind": kind, "amount": amount, "currency": "EUR", "starts_at": starts_at}
        rows.append([cells[name] for name in names])
    if draw(st.booleans()):
        at = names.index("kind")
        names, rows = names[:at] + names[at + 1 :], [row[:at] + row[at + 1 :] for row in rows]
    return Table(names, rows, 2)


@pytest.mark.parametrize("full", [True, False])
@settings(max_examples=300, deadline=None)
@given(stored, feeds(), st.sampled_from([[], ["regular"], ["promotion"], ["promotion", "clearance"]]), st.booleans())
def test_rows_outside_of_what_a_feed_speaks_for_stay_as_they_are(
    full: bool, current: dict[Key, Row], feed: Table, kinds: list[str], by_row: bool
) -> None:
    part = part_of(PRICE, {"kind": kinds} if kinds else {})
    speaks_for = set(kinds or KINDS)
    named: list[Key] = []  # read without the code under test
    for line in feed:
        fields = line.fields
        named.append((str(fields["sku"]), str(fields.get("kind", "regular"))))
    event(f"by columns: {compare_columns(PRICE, feed, current, NOW) is not None}")
    try:
        found = diff(PRICE, "f.csv", list(feed) if by_row else feed, current, NOW, full=full, part=part)
    except BadFeed as error:
        event(f"refused: {error.field}")
        outside = [at for at, (_, kind) in enumerate(named, start=2) if kind not in speaks_for]
        assert error.field != "kind" or error.line == outside[0]
        return
    assert {kind for _, kind in named} <= speaks_for, "a row outside is refused"
    assert {key[1] for key, _ in found.changes} <= speaks_for
    gone = {key for key, values in found.changes if values is None}
    assert gone == ({key for key in current if key[1] in speaks_for and key not in named} if full else set())
    assert (found.deleted, found.named) == (len(gone), len(set(named)))
