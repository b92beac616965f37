"""`storenode search`: what a person types finds products, and nothing that is typed does harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from storelink.contract.contexts import BUILT_IN, PRODUCT, Row
from storelink.contract.rows import EMPTY
from storelink.contract.streams import Stream
from storenode.cli import main
from storenode.replica import queries
from storenode.replica.writer import Replica

EPOCH = "000000000001-00000000"


def product(seq: int, sku: str, **values: str) -> Row:
    return (seq, sku, *(values.get(column) for column in PRODUCT.value_names))


def fill(path: Path) -> None:
    """Three products chain-wide, one of them with another name in the west, and a price."""
    replica = Replica.open(path, ("all", "zone-west"), BUILT_IN)
    streams: dict[str, list[Row]] = {
        "product/all": [
            product(1, "1", name="Crème fraîche", brand="Isigny"),
            product(2, "2", name="Organic whole milk", description="from grass-fed cows"),
            product(3, "3", name="Milk chocolate"),
        ],
        "product/zone-west": [product(1, "3", name="Western chocolate", gtin="4006381333931")],
        "price/all": [(1, "2", "regular", "EUR", "[[1700000000,null,139]]")],
    }
    for name, rows in streams.items():
        replica.apply(
            Stream.parse(name, BUILT_IN),
            epoch=EPOCH,
            position=len(rows),
            digest=EMPTY,
            head_seq=len(rows),
            batches=[(rows, [])],
            replace=False,
            wall_ms=0,
        )
    while not replica.is_search_ready():
        replica.feed_search()
    replica.connection.close()


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    with TemporaryDirectory() as directory:
        found = Path(directory) / "replica.db"
        fill(found)
        yield found


@pytest.mark.parametrize(
    ("text", "skus"),
    [
        ("milk", ["2"]),
        ("MIL org", ["2"]),
        ("creme", ["1"]),
        ("isigny fra", ["1"]),
        ("grass", ["2"]),
        ("4006", ["3"]),
        ("western", ["3"]),
        ("bread", []),
        ("milk bread", []),
        ('"', []),
        ("-*(", []),
        ("milk NOT whole", []),
        ("", []),
    ],
)
def test_words_find_products_as_this_store_names_them(path: Path, text: str, skus: list[str]) -> None:
    assert [row["sku"] for row in queries.search(path, text, 10)] == skus


def test_what_is_found_comes_with_its_price_now(path: Path) -> None:
    assert queries.search(path, "organic", 1) == [
        {
            "sku": "2",
            "gtin": None,
            "name": "Organic whole milk",
            "brand": None,
            "pack_size": None,
            "department": None,
            "category": None,
            "amount_minor": 139,
            "currency": "EUR",
        }
    ]


@given(text=st.text() | st.text(alphabet='milk"*()^:-+{}., \0\ud800ANDORT'))
def test_any_text_is_harmless(path: Path, text: str) -> None:
    for row in queries.search(path, text, 5):
        assert row["sku"] in {"1", "2", "3"}


def test_the_command_prints_json_and_lines(path: Path) -> None:
    run = CliRunner().invoke
    as_json = run(main, ["--db", str(path), "search", "whole", "mil", "--json"])
    assert [row["sku"] for row in json.loads(as_json.stdout)] == ["2"]
    assert "1.39 EUR  Organic whole milk" in run(main, ["--db", str(path), "search", "whole"]).stdout
    nothing = run(main, ["--db", str(path), "search", "bread"])
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (0, "", "nothing found\n")
