"""Every price at every instant: the views, `price --at` and `explain` against a model that knows no SQL."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storelink.contract.contexts import BUILT_IN, PRICE, Row
from storelink.contract.precedence import Line, candidates
from storelink.contract.rows import EMPTY
from storelink.contract.streams import Stream
from storenode.errors import NotFound
from storenode.outbox import override_copy, overrides
from storenode.outbox.store import Outbox
from storenode.replica import queries, schema
from storenode.replica.explain import explain
from storenode.replica.schema import CATALOG, NOW_S, OWN, price_at_sql
from storenode.replica.writer import Replica

SCOPES = ("all", "zone-west", "store-7")
KINDS = ("regular", "promotion", "clearance")
SKUS = ("a", "b")
T0 = 1_800_000_000

Steps = list[tuple[int, int | None, int]]


@dataclass
class World:
    """Price lines by (sku, scope, kind), and what was done about overrides: (at, sku, amount or None, until)."""

    lines: dict[tuple[str, str, str], Steps] = field(default_factory=dict)
    own: list[tuple[int, str, int | None, int]] = field(default_factory=list)

    def price(self, sku: str, at: int) -> tuple[int, str, str] | None:
        """(amount, kind, scope), told by the rule as the guide words it."""
        said = [each for each in self.own if each[1] == sku and each[0] <= at]
        if said and said[-1][2] is not None and at < said[-1][3]:
            return said[-1][2], "override", "store-7"
        for scope in reversed(SCOPES):
            special: list[tuple[int, int, str]] = []
            regular: list[tuple[int, int, str]] = []
            for kind in KINDS:
                for start, end, amount in self.lines.get((sku, scope, kind), []):
                    if at >= start and not (end is not None and at >= end):
                        (regular if kind == "regular" else special).append((start, amount, kind))
            for group in (special, regular):
                if group:
                    newest = [each for each in group if each[0] == max(start for start, _, _ in group)]
                    cheapest = min(amount for _, amount, _ in newest)
                    kind = min(k for _, amount, k in newest if amount == cheapest)
                    return cheapest, kind, scope
        return None


@st.composite
def schedules(draw: st.DrawFn) -> Steps:
    at = T0 + draw(st.integers(0, 6))
    steps: Steps = []
    for gap, length in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), min_size=1, max_size=4)):
        steps.append((at + gap, at + gap + length, draw(st.integers(0, 3))))
        at += gap + length
    if draw(st.booleans()):
        steps[-1] = (steps[-1][0], None, steps[-1][2])
    return steps


@st.composite
def worlds(draw: st.DrawFn) -> World:
    keys = st.tuples(st.sampled_from(SKUS), st.sampled_from(SCOPES), st.sampled_from(KINDS))
    lines = draw(st.dictionaries(keys, schedules(), max_size=8))
    own, at = [], T0
    deeds = st.tuples(
        st.integers(0, 5), st.sampled_from(SKUS), st.one_of(st.none(), st.integers(0, 3)), st.integers(1, 8)
    )
    for gap, sku, amount, length in draw(st.lists(deeds, max_size=4)):
        at += gap
        own.append((at, sku, amount, at + length))
    return World(lines, own)


def built(world: World, directory: Path) -> Replica:
    """A replica to which all of it has happened."""
    replica = Replica.open(directory / "replica.db", SCOPES, BUILT_IN)
    for scope in SCOPES:
        rows: list[Row] = [
            (n, sku, kind, "EUR", str([list(s) for s in steps]).replace("None", "null").replace(" ", ""))
            for n, ((sku, place, kind), steps) in enumerate(world.lines.items(), 1)
            if place == scope
        ]
        many = len(world.lines) or 1
        replica.apply(
            Stream(PRICE, scope),
            epoch="e",
            position=many,
            digest=EMPTY,
            head_seq=many,
            batches=[(rows, [])],
            replace=False,
            wall_ms=0,
        )
    products: list[Row] = [(n, sku, None, sku, *(None,) * 10) for n, sku in enumerate(SKUS, 1)]
    replica.apply(
        Stream.parse("product/all", BUILT_IN),
        epoch="e",
        position=2,
        digest=EMPTY,
        head_seq=2,
        batches=[(products, [])],
        replace=False,
        wall_ms=0,
    )
    with Outbox(directory / "outbox.db") as outbox:
        ends: dict[str, int] = {}
        for at, sku, amount, until in world.own:
            if amount is not None:
                overrides.put(outbox, sku, amount, "EUR", until, "r", at * 1000)
                ends[sku] = until
            elif ends.pop(sku, 0) > at:
                overrides.withdraw(outbox, sku, at * 1000)
            else:
                with pytest.raises(NotFound):
                    overrides.withdraw(outbox, sku, at * 1000)
    override_copy.OverrideCopy(directory / "outbox.db", replica, "store-7").step(0, woken=True)
    return replica


def asked(replica: Replica, sql: str) -> dict[str, list[tuple[Any, ...]]]:
    found: dict[str, list[tuple[Any, ...]]] = {}
    for sku, *rest in replica.connection.execute(f"SELECT sku, amount_minor, kind, scope FROM ({sql})"):
        found.setdefault(sku, []).append(tuple(rest))
    return found


@settings(max_examples=120, deadline=None)
@given(worlds(), st.lists(st.integers(-2, 40), min_size=6, max_size=12))
@example(World({}, [(T0, "a", 0, T0 + 2), (T0 + 1, "a", None, T0 + 2), (T0 + 1, "a", None, T0 + 2)]), [0, 1, 2])
def test_every_price_at_every_instant_is_the_models(world: World, seconds: list[int]) -> None:
    with TemporaryDirectory() as directory:
        replica = built(world, Path(directory))
        for at in {T0 + second for second in seconds}:
            expected = {sku: world.price(sku, at) for sku in SKUS}
            assert asked(replica, price_at_sql(str(at))) == {s: [p] for s, p in expected.items() if p is not None}
            assert asked(replica, CATALOG.replace(NOW_S, str(at))) == {
                s: [p or (None, None, None)] for s, p in expected.items()
            }
            for sku, price in expected.items():
                agrees(replica.path, sku, at, price)
        replica.connection.close()


def agrees(path: Path, sku: str, at: int, price: tuple[int, str, str] | None) -> None:
    """Hold `price --at` and `explain` against the model."""
    names = ("amount_minor", "kind", "scope")
    try:
        found: Any = queries.price(path, sku, at)
    except NotFound:
        found = None
    assert (found and tuple(found[name] for name in names)) == price
    try:
        told = explain(path, sku, at)
    except NotFound:
        assert price is None
        return
    assert told["price"] == found
    assert [each["won"] for each in told["candidates"]].count(True) == (price is not None)


def test_the_views_themselves_ask_for_now() -> None:
    assert NOW_S in CATALOG
    with TemporaryDirectory() as directory:
        replica = Replica.open(Path(directory) / "replica.db", ("all",), BUILT_IN)
        (sql,) = replica.connection.execute("SELECT sql FROM sqlite_master WHERE name = 'current_prices'").fetchone()
        assert sql.endswith(price_at_sql(NOW_S))
        replica.connection.close()


def test_the_order_of_candidates_is_the_order_of_precedence() -> None:
    lines = [
        Line("all", 0, "regular", "EUR", schema_of((0, None, 300)), 1),
        Line("all", 0, "promotion", "EUR", schema_of((0, 100, 200), (200, None, 150)), 2),
        Line("zone-west", 1, "regular", "EUR", schema_of((50, None, 250)), 3),
        Line(f"{OWN}store-7", schema.OWN_RANK, "override", "EUR", schema_of((60, 80, 99)), 4),
    ]
    told = [(c.step.amount_minor, c.in_force, c.won, c.why) for c in candidates(lines, 70)]
    assert told == [
        (99, True, True, "this store's own price wins over every price of HQ"),
        (250, True, False, "this store's own price wins over every price of HQ"),
        (200, True, False, "this store's own price wins over every price of HQ"),
        (300, True, False, "this store's own price wins over every price of HQ"),
        (150, False, False, "it begins at 1970-01-01T00:03:20Z"),
    ]
    later = [(c.step.amount_minor, c.why) for c in candidates(lines, 90)]
    assert later[:3] == [
        (250, "the scope zone-west wins over all"),
        (200, "the scope zone-west wins over all"),
        (300, "the scope zone-west wins over all"),
    ]
    assert later[-1] == (99, "it ended at 1970-01-01T00:01:20Z")
    plain = [(c.step.amount_minor, c.why) for c in candidates(lines[:2], 90)]
    assert plain[:2] == [(200, "a promotion wins over a regular price"), (300, "a promotion wins over a regular price")]


def schema_of(*steps: tuple[int, int | None, int]) -> Any:
    from storelink.contract.schedule import Step

    return tuple(Step(*step) for step in steps)
