"""What tills read: the views' precedence, their indexes, and how far they say they can be trusted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.rows import EMPTY
from storelink.contract.streams import Stream
from storenode.errors import NotFound
from storenode.replica import queries
from storenode.replica.writer import Replica

NOW_S = int(time.time())
HOUR_S, DAY_S = 3_600, 86_400
ALL, WEST, STORE = (Stream(BUILT_IN["price"], scope) for scope in ("all", "zone-west", "store-7"))
PRODUCT, PRODUCT_STORE = Stream.parse("product/all", BUILT_IN), Stream.parse("product/store-7", BUILT_IN)


def put(replica: Replica, stream: Stream, *rows: Row) -> None:
    position = replica.state(stream).position
    numbered = [(position + number, *row) for number, row in enumerate(rows, 1)]
    replica.apply(
        stream,
        epoch="e",
        position=position + len(rows),
        digest=EMPTY,
        head_seq=position + len(rows),
        batches=[(numbered, [])],
        replace=False,
        wall_ms=NOW_S * 1000,
    )


def price(kind: str, amount: int, starts: int = -DAY_S, ends: int | None = None, sku: str = "1") -> Row:
    until = "null" if ends is None else NOW_S + ends
    return (sku, kind, "EUR", f"[[{NOW_S + starts},{until},{amount}]]")


def product(sku: str, name: str, gtin: str | None = None) -> Row:
    return (sku, gtin, name, *(None,) * 10)


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    replica = Replica.open(tmp_path / "replica.db", ("all", "zone-west", "store-7"), BUILT_IN)
    yield replica
    replica.connection.close()


def asked(replica: Replica, sql: str) -> list[tuple[Any, ...]]:
    return replica.connection.execute(sql).fetchall()


def current(replica: Replica) -> list[tuple[Any, ...]]:
    return asked(replica, "SELECT amount_minor, kind, scope FROM current_prices")


def test_promotion_and_clearance_win_over_regular(replica: Replica) -> None:
    put(replica, ALL, price("regular", 300, starts=-HOUR_S), price("promotion", 200))
    assert current(replica) == [(200, "promotion", "all")]


def test_the_most_specific_scope_wins_over_any_kind(replica: Replica) -> None:
    put(replica, ALL, price("promotion", 100))
    put(replica, WEST, price("regular", 250))
    assert current(replica) == [(250, "regular", "zone-west")]
    put(replica, STORE, price("regular", 260))
    assert current(replica) == [(260, "regular", "store-7")]


def test_among_promotion_and_clearance_the_latest_start_wins_then_the_lower_amount(replica: Replica) -> None:
    put(replica, ALL, price("promotion", 100, starts=-2 * HOUR_S), price("clearance", 150, starts=-HOUR_S))
    assert current(replica) == [(150, "clearance", "all")]
    put(replica, ALL, price("promotion", 100, starts=-HOUR_S))
    assert current(replica) == [(100, "promotion", "all")]


def test_a_price_that_is_not_in_force_is_not_there(replica: Replica) -> None:
    put(replica, ALL, price("promotion", 100, starts=-DAY_S, ends=-1), price("clearance", 50, starts=HOUR_S))
    assert current(replica) == []
    put(replica, ALL, price("regular", 300))
    assert current(replica) == [(300, "regular", "all")]


def test_a_schedule_answers_for_any_time_and_its_ends_are_exclusive(replica: Replica) -> None:
    steps = "[[1000,2000,10],[2000,3000,20],[3000,null,30]]"
    put(replica, ALL, ("1", "regular", "EUR", steps))
    found = {at: queries.price(replica.path, "1", at)["amount_minor"] for at in (1000, 1999, 2000, 2999, 3000, 10**9)}
    assert found == {1000: 10, 1999: 10, 2000: 20, 2999: 20, 3000: 30, 10**9: 30}
    with pytest.raises(NotFound, match="no price for 1 at 1970-01-01T00:16:39Z"):
        queries.price(replica.path, "1", 999)
    assert queries.price(replica.path, "1", 1500) == {
        "sku": "1",
        "amount_minor": 10,
        "currency": "EUR",
        "kind": "regular",
        "scope": "all",
        "starts_at": "1970-01-01T00:16:40Z",
        "ends_at": "1970-01-01T00:33:20Z",
    }


def test_catalog_has_one_row_a_sku_with_or_without_a_price(replica: Replica) -> None:
    put(replica, PRODUCT, product("1", "Milk", "g1"), product("2", "Bread"))
    put(replica, PRODUCT_STORE, product("1", "Local milk", "g1"))
    put(replica, ALL, price("regular", 300), price("regular", 50, sku="9"))
    asked_for = "SELECT sku, name, amount_minor, currency, kind, scope FROM catalog ORDER BY sku"
    assert asked(replica, asked_for) == [
        ("1", "Local milk", 300, "EUR", "regular", "all"),
        ("2", "Bread", None, None, None, None),
    ]
    assert asked(replica, "SELECT name FROM catalog WHERE gtin = 'g1'") == [("Local milk",)]


def test_catalog_shows_the_very_price_of_current_prices(replica: Replica) -> None:
    put(replica, PRODUCT, *(product(str(n), f"name {n}") for n in range(4)))
    for number, stream in enumerate((ALL, WEST, STORE)):
        put(replica, stream, *(price("regular", 10 * number + n, sku=str(n)) for n in range(number, 4)))
    put(replica, ALL, price("promotion", 5, sku="0"), price("clearance", 4, starts=-HOUR_S, sku="0"))
    columns = "sku, amount_minor, currency, kind, scope, starts_at, ends_at"
    assert asked(replica, f"SELECT {columns} FROM catalog ORDER BY sku") == asked(
        replica, f"SELECT {columns} FROM current_prices ORDER BY sku"
    )


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM current_prices WHERE sku = '1'",
        "SELECT * FROM catalog WHERE sku = '1'",
        "SELECT * FROM catalog WHERE gtin = '1'",
        "SELECT * FROM current_prices WHERE sku IN ('1', '2')",
        "SELECT p.name, c.kind FROM products AS p JOIN current_prices AS c ON c.sku = p.sku WHERE p.gtin = '1'",
    ],
)
def test_a_lookup_searches_an_index_and_never_computes_the_whole_view(replica: Replica, sql: str) -> None:
    """The first shape of `catalog` computed every price for one lookup: 230 ms at 50,000 products."""
    plan = [row[3] for row in asked(replica, f"EXPLAIN QUERY PLAN {sql}")]
    full = [step for step in plan if "MATERIALIZE" in step or "CO-ROUTINE" in step or "AUTOMATIC" in step]
    scans = [step for step in plan if step.startswith("SCAN") and "VIRTUAL TABLE" not in step]
    assert (full, scans) == ([], []), plan


def test_the_price_list_in_order_is_read_from_the_index_without_sorting(replica: Replica) -> None:
    plan = [row[3] for row in asked(replica, "EXPLAIN QUERY PLAN SELECT * FROM current_prices ORDER BY sku LIMIT 9")]
    assert plan[0] == "SCAN r USING INDEX sqlite_autoindex_prices_1"
    assert plan.count("USE TEMP B-TREE FOR ORDER BY") == 1, "only one sku's lines are sorted"


def freshness(replica: Replica, state: str, *, as_of_s: int | None, seen_s: int | None) -> tuple[Any, ...]:
    now_s = int(time.time())
    replica.note(ALL, state=state, head_seq=7, as_of_ms=None if as_of_s is None else (now_s - as_of_s) * 1000)
    if seen_s is not None:
        replica.heartbeat(
            store_id="s", pid=1, connected=True, started_at_ms=0, counters={}, wall_ms=(now_s - seen_s) * 1000
        )
    found = asked(replica, "SELECT state, lag_events, stale_seconds FROM freshness WHERE stream = 'price/all'")
    return found[0]


@pytest.mark.parametrize(
    ("state", "as_of_s", "seen_s", "shown"),
    [
        ("live", 5, 5, "live"),
        ("live", 60, 1, "offline"),
        ("live", None, 1, "offline"),
        ("catching_up", 3_600, 1, "catching_up"),
        ("catching_up", 3_600, 60, "offline"),
        ("catching_up", 3_600, None, "offline"),
        ("diverged", 3_600, 3_600, "diverged"),
        ("bootstrapping", None, 3_600, "bootstrapping"),
    ],
)
def test_freshness_stops_believing_what_nobody_renews(
    replica: Replica, state: str, as_of_s: int | None, seen_s: int | None, shown: str
) -> None:
    found, lag, stale_s = freshness(replica, state, as_of_s=as_of_s, seen_s=seen_s)
    assert (found, lag) == (shown, 7)
    assert stale_s is None if as_of_s is None else as_of_s <= stale_s <= as_of_s + 30


def test_a_clock_set_back_never_shows_a_negative_age(replica: Replica) -> None:
    assert freshness(replica, "live", as_of_s=-600, seen_s=0) == ("live", 7, 0)


def test_noting_without_a_time_keeps_the_time_there_was(replica: Replica) -> None:
    freshness(replica, "live", as_of_s=5, seen_s=0)
    replica.note(ALL, state="offline", head_seq=7, as_of_ms=None)
    (stale_s,) = asked(replica, "SELECT stale_seconds FROM freshness WHERE stream = 'price/all'")[0]
    assert 5 <= stale_s <= 35
