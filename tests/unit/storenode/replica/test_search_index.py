"""The search index: behind the rows for a while, never wrong once it says that it is ready."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream
from storenode.replica import search_index
from storenode.replica.writer import Replica
from tests.product_rows import advance, check_index, feed_all, found, product

WEST = Stream.parse("product/zone-west", BUILT_IN)


def models(replica: Replica) -> dict[str, tuple[int, str]]:
    rows = replica.connection.execute("SELECT stream, position, state FROM read_models WHERE name = 'product_search'")
    return {stream: (position, state) for stream, position, state in rows}


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    replica = Replica.open(tmp_path / "replica.db", ("all", "zone-west"), BUILT_IN)
    yield replica
    replica.connection.close()


@pytest.fixture
def _fed(replica: Replica) -> None:
    advance(replica, 2, [product(1, "1", "Crème fraîche", brand="Isigny"), product(2, "2", "Whole milk")])
    feed_all(replica)


@pytest.mark.usefixtures("_fed")
def test_words_prefixes_brands_and_folded_accents_are_found(replica: Replica) -> None:
    assert found(replica, "creme") == {("all", "1")}
    assert found(replica, "isig*") == {("all", "1")}
    assert found(replica, "milk whole") == {("all", "2")}
    assert found(replica, "bread") == set()


@pytest.mark.usefixtures("_fed")
def test_the_index_has_a_position_of_its_own(replica: Replica) -> None:
    assert models(replica) == {"product/all": (2, "ready"), "product/zone-west": (0, "ready")}
    advance(replica, 3, [product(3, "2", "Oat drink")])
    assert models(replica)["product/all"] == (2, "behind")
    assert found(replica, "milk") == {("all", "2")}, "a search behind the rows finds what the product was called"
    feed_all(replica)
    assert models(replica)["product/all"] == (3, "ready")
    assert (found(replica, "milk"), found(replica, "oat")) == (set(), {("all", "2")})
    check_index(replica)


@pytest.mark.usefixtures("_fed")
def test_a_row_that_takes_a_deleted_ones_place_is_indexed_as_itself(replica: Replica) -> None:
    """SQLite gives the highest row number again: the index must forget the old text under it, not the new one."""
    advance(replica, 3, [], [(3, "2")])
    advance(replica, 4, [product(4, "9", "Butter")])
    feed_all(replica)
    assert (found(replica, "milk"), found(replica, "butter")) == (set(), {("all", "9")})
    check_index(replica)


@pytest.mark.usefixtures("_fed")
def test_a_product_renamed_twice_between_two_feeds_is_forgotten_under_its_first_name(replica: Replica) -> None:
    advance(replica, 3, [product(3, "2", "Oat drink")])
    advance(replica, 4, [product(4, "2", "Soy drink")])
    feed_all(replica)
    assert (found(replica, "milk"), found(replica, "oat"), found(replica, "soy")) == (set(), set(), {("all", "2")})
    check_index(replica)


@pytest.mark.usefixtures("_fed")
def test_too_many_changes_are_rebuilt_and_others_are_fed_in_steps(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_index, "FEED_ROWS", 10)
    monkeypatch.setattr(search_index, "PENDING_ROWS_MIN", 100)
    advance(replica, 52, [product(seq, f"a{seq}", "Apple") for seq in range(3, 53)])
    assert models(replica)["product/all"] == (2, "behind")
    assert feed_all(replica) == 5
    advance(replica, 253, [product(seq, f"b{seq}", "Pear") for seq in range(53, 254)])
    assert models(replica)["product/all"] == (52, "stale")
    assert feed_all(replica) == 1
    assert (len(found(replica, "apple")), len(found(replica, "pear"))) == (50, 201)
    check_index(replica)


def test_products_of_a_scope_no_longer_followed_are_found_no_more(tmp_path: Path) -> None:
    path = tmp_path / "replica.db"
    before = Replica.open(path, ("all", "zone-west"), BUILT_IN)
    advance(before, 1, [product(1, "1", "Milk")])
    advance(before, 1, [product(1, "1", "Local milk")], stream=WEST)
    feed_all(before)
    before.connection.close()
    after = Replica.open(path, ("all",), BUILT_IN)
    feed_all(after)
    assert found(after, "milk") == {("all", "1")}
    assert models(after) == {"product/all": (1, "ready")}
    check_index(after)
    after.connection.close()


def test_readers_of_another_process_can_search(tmp_path: Path) -> None:
    writer = Replica.open(tmp_path / "replica.db", ("all",), BUILT_IN)
    advance(writer, 1, [product(1, "1", "Milk")])
    feed_all(writer)
    reader = sqlite3.connect(f"{(tmp_path / 'replica.db').as_uri()}?mode=ro", uri=True)
    rows = reader.execute("SELECT sku, name FROM product_search WHERE product_search MATCH 'milk' ORDER BY rank")
    assert rows.fetchall() == [("1", "Milk")]
    reader.close()
    writer.connection.close()
