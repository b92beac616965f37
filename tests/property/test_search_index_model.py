"""What the search index finds, against a plain dict of what the products are called."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.streams import Stream
from storenode.replica import search_index
from storenode.replica.writer import Replica
from tests.product_rows import ALL, advance, check_index, feed_all, found, product

WEST = Stream.parse("product/zone-west", BUILT_IN)


WORDS = ("milk", "bread", "apple", "tea")
change = st.tuples(st.sampled_from("abcdef"), st.none() | st.sampled_from(WORDS))
History = list[tuple[Stream, list[tuple[str, str | None]], int, bool]]
step = st.tuples(
    st.sampled_from((ALL, WEST)), st.lists(change, min_size=1, max_size=6), st.integers(0, 3), st.booleans()
)


@settings(max_examples=60, deadline=None)
@given(st.lists(step, max_size=12))
def test_once_ready_the_index_finds_exactly_the_rows(history: History) -> None:
    """Against a dict: writes, deletes, rebuilds, and feeds that stop half-way, in any order."""
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_index, "FEED_ROWS", 2)
        patch.setattr(search_index, "PENDING_ROWS_MIN", 20)
        replica = Replica.open(Path(directory) / "replica.db", ("all", "zone-west"), BUILT_IN)
        model: dict[tuple[str, str], str] = {}
        seqs = {ALL: 0, WEST: 0}
        for stream, changes, feeds, replace in history:
            rows: list[Row] = []
            deleted: list[Row] = []
            if replace:
                model = {key: word for key, word in model.items() if key[0] != stream.scope}
            for sku, word in changes:
                seqs[stream] += 1
                if word is None:
                    deleted.append((seqs[stream], sku))
                    model.pop((stream.scope, sku), None)
                else:
                    rows.append(product(seqs[stream], sku, word))
                    model[stream.scope, sku] = word
            advance(replica, seqs[stream], rows, deleted, stream=stream, replace=replace)
            for _ in range(feeds):
                if not replica.is_search_ready():
                    replica.feed_search()
        feed_all(replica)
        for word in WORDS:
            assert found(replica, word) == {key for key, held in model.items() if held == word}
        check_index(replica)
        replica.connection.close()
