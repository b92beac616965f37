"""Products as a replica gets them, and what its search index finds of them."""

from __future__ import annotations

from collections.abc import Sequence

from storelink.contract.contexts import BUILT_IN, PRODUCT, Row
from storelink.contract.rows import EMPTY
from storelink.contract.streams import Stream
from storenode.replica.writer import Replica

ALL = Stream.parse("product/all", BUILT_IN)
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
