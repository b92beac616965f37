"""Wire rows of any number: the real products, multiplied, each copy under a sku of its own."""

from __future__ import annotations

from collections.abc import Sequence

from storelink.contract.contexts import BUILT_IN, PRODUCT, Row
from storelink.contract.messages import Message, Segment, encode_segment
from storelink.contract.streams import Stream
from testbed.feeds import Grocery

PRODUCTS, PRICES = Stream.parse("product/all", BUILT_IN), Stream.parse("price/all", BUILT_IN)
EPOCH = "0" * 12 + "-" + "1" * 8
ROOT = "bench"


def product_rows(grocery: Grocery, count: int) -> list[Row]:
    """`count` rows with seq 1..count, in the order of the feed."""
    names = PRODUCT.value_names
    shapes = [(p["sku"], tuple(p.get(name) for name in names)) for p in grocery.products]
    found: list[Row] = []
    for index in range(count):
        copy, place = divmod(index, len(shapes))
        sku, values = shapes[place]
        found.append((index + 1, f"{sku}-{copy}" if copy else sku, *values))
    return found


def price_rows(grocery: Grocery, count: int) -> list[Row]:
    amounts = list(grocery.prices.items())
    found: list[Row] = []
    for index in range(count):
        copy, place = divmod(index, len(amounts))
        sku, cents = amounts[place]
        found.append((index + 1, f"{sku}-{copy}" if copy else sku, "regular", "EUR", f"[[1764000000,null,{cents}]]"))
    return found


def segments(stream: Stream, rows: Sequence[Row], rows_each: int) -> list[Message]:
    """The rows as HQ seals them."""
    found = []
    for start in range(0, len(rows), rows_each):
        part = rows[start : start + rows_each]
        first, last = start + 1, start + len(part)
        found.append(encode_segment(ROOT, Segment(stream, EPOCH, first, last, part, []), 0))
    return found
