"""What the search index finds, against a plain dict of what the products are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storelink.contract.contexts import BUILT_IN, PRODUCT, Row
from storelink.contract.digest import EMPTY
from storelink.contract.streams import Stream
from storenode.replica import search_index
from storenode.replica.writer import Replica

ALL, WEST = Stream(PRODUCT, "all"), Stream(PRODUCT, "zone-west")
EPOCH = "000000000001-00000000"
Found = set[tuple[str, str]]


def product(seq: int, sku: str, name: str, **others: str) -> Row:
    values = {"name": name} | others
    return (seq, sku, *(values.get(column) for column in PRODUCT.value_names))


def advance(
    replica: Replica,
    position: int,
    rows: Sequence[Row],
    deleted: Sequence[Row] = (),
    *,
    stream: Stream = ALL,
    replace: bool = False,
) -> None:
    replica.apply(
        stream,
        epoch=EPOCH,
        position=position,
        digest=EMPTY,
        head_seq=position,
        batches=[(rows, deleted)],
        replace=replace,
        wall_ms=0,
    )


def feed_all(replica: Replica) -> int:
    steps = 0
    while not replica.is_search_ready():
        replica.feed_search()
        steps += 1
    return steps


def found(replica: Replica, text: str) -> Found:
    return set(
        replica.connection.execute("SELECT scope, sku FROM product_search WHERE product_search MATCH ?", (text,))
    )


def check_index(replica: Replica) -> None:
    """SQLite's own proof: only with rank = 1 does it compare the index with the rows."""
    replica.connection.execute("INSERT INTO product_search(product_search, rank) VALUES('integrity-check', 1)")


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
