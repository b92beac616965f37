"""`storenode get` and `storenode price`: what they print, and what they say where nothing is."""

from __future__ import annotations

import json

import pytest

from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream
from storenode.replica.writer import Replica
from tests.unit.storenode.commands.store import put, typed


def test_get_prints_a_row_with_its_json_taken_apart(live: Replica) -> None:
    found = json.loads(typed(live, "get", "product", "4011", "--json").stdout)
    assert {name: value for name, value in found.items() if value is not None} == {
        "scope": "all",
        "seq": 1,
        "sku": "4011",
        "gtin": "5012345678900",
        "name": "Milk",
        "attributes": {"organic": True},
    }


def test_get_fills_the_kind_of_a_price_and_honours_the_scope(live: Replica) -> None:
    put(live, Stream.parse("price/zone-west", BUILT_IN), (1, "4011", "regular", "EUR", "[[1700000000,1900000000,150]]"))
    scopes = {
        words: json.loads(typed(live, "get", "price", "4011", *words, "--json").stdout)["scope"]
        for words in ((), ("regular",), ("--scope", "all"))
    }
    assert scopes == {(): "zone-west", ("regular",): "zone-west", ("--scope", "all"): "all"}
    assert json.loads(typed(live, "get", "price", "4011", "--json").stdout)["schedule"] == [
        {"starts_at": "2023-11-14T22:13:20Z", "ends_at": "2030-03-17T17:46:40Z", "amount_minor": 150}
    ]


def test_price_prints_the_documented_keys(live: Replica) -> None:
    assert json.loads(typed(live, "price", "4011", "--json").stdout) == {
        "sku": "4011",
        "amount_minor": 199,
        "currency": "EUR",
        "kind": "regular",
        "scope": "all",
        "starts_at": "2023-11-14T22:13:20Z",
        "ends_at": None,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["price", "nope"], "error: no price for nope now in this replica"),
        (["price", "4011", "--at", "2020-01-01"], "error: no price for 4011 at 2020-01-01T00:00:00Z in this replica"),
        (["price", "4011", "--at", "2026-01-01T08"], "error: '2026-01-01T08' lacks Z or an offset"),
        (["price", "4011", "--at", "20260101T0800"], "error: '20260101T0800' lacks Z or an offset"),
        (["price", "4011", "--at", "noon"], "error: 'noon' is not a time"),
        (["price", "4011", "--at", "2026-01-01T08:00"], "error: '2026-01-01T08:00' lacks Z or an offset"),
        (["get", "product", "nope"], "error: no product nope in this replica"),
        (["get", "product", "1", "--scope", "zone-west"], "error: no product 1 in scope zone-west of this replica"),
    ],
)
def test_what_is_not_there_is_one_clear_line_and_a_hint(live: Replica, words: list[str], message: str) -> None:
    result = typed(live, *words)
    assert (result.exit_code, result.stdout) == (1, "")
    first, second = result.stderr.splitlines()
    assert first == message
    assert second.startswith("hint: ")
