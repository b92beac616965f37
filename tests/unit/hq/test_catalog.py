"""The library: what is one transaction, what a plan is worth later, and which values a field takes."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from hq import BadField, Catalog, GuardTripped, MasterMissing
from hq.feeds.plan import PLAN_AGE_MS_MAX
from storelink.contract.contexts import BUILT_IN
from storelink.contract.declared import parse

NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)
TAX = '[[context]]\nname = "tax"\ntable = "taxes"\nkeys = [{ name = "tax_class" }]\nvalues = [%s]\n'
RATE, LABEL = '{ name = "rate_bp", kind = "integer" }', '{ name = "label" }'


LONG = "\N{CHERRIES}" * 4_000
"""As long as a column may be; five of them are more than a row may be."""


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.ms = int(NOW.timestamp() * 1000)

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(tmp_path: Path, clock: Clock) -> Iterator[Catalog]:
    with Catalog.create(tmp_path / "hq.db", clock=clock) as catalog:
        yield catalog


def heads(catalog: Catalog) -> dict[str, int]:
    return {str(row.stream): row.head_seq for row in catalog.streams()}


def feed(catalog: Catalog, *lines: str, name: str = "feed.csv") -> Path:
    path = catalog.path.with_name(name)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_making_a_master_that_is_there_opens_it(catalog: Catalog) -> None:
    catalog.publish("product", sku="1")
    with Catalog.create(catalog.path) as again:
        assert (catalog.is_new, again.is_new, heads(again)["product/all"]) == (True, False, 1)
    with pytest.raises(MasterMissing):
        Catalog.open(catalog.path.with_name("none.db"))


def test_a_change_set_of_three_streams_is_there_or_not(catalog: Catalog) -> None:
    with pytest.raises(ZeroDivisionError), catalog.change_set() as change_set:
        change_set.publish("product", sku="1", name="A")
        change_set.publish("price", sku="1", amount="1.00", currency="EUR", scope="zone-west")
        raise ZeroDivisionError
    assert (heads(catalog), change_set.committed) == ({"price/all": 0, "product/all": 0}, [])
    with pytest.raises(BadField, match="bytes with all its columns"), catalog.change_set() as change_set:
        change_set.publish("price", sku="1", amount="1.00", currency="EUR")
        change_set.publish(
            "product", sku="1", **dict.fromkeys(("name", "description", "brand", "category", "status"), LONG)
        )
    assert heads(catalog) == {"price/all": 0, "product/all": 0}
    with catalog.change_set() as change_set:
        change_set.publish("product", sku="1", name="A")
        change_set.publish("price", sku="1", amount="1.00", currency="EUR", scope="zone-west")
        change_set.publish("product", sku="1", brand="B")
        change_set.delete("price", sku="2")
    assert [(str(done.stream), done.events) for done in change_set.committed] == [
        ("product/all", 1),
        ("price/zone-west", 1),
        ("price/all", 0),
    ]
    assert catalog.verify().ok


def test_a_mistake_in_a_change_set_has_no_effect_and_may_be_caught(catalog: Catalog) -> None:
    with catalog.change_set() as change_set:
        with pytest.raises(BadField, match="sku: is missing"):
            change_set.publish("product", name="A")
        with pytest.raises(BadField, match="no place in a delete"):
            change_set.delete("product", sku="1", name="A")
        with pytest.raises(BadField, match="amount: is missing"):
            change_set.publish("price", scope="zone-west", sku="1", currency="EUR")
        change_set.publish("product", sku="2")
    assert heads(catalog) == {"price/all": 0, "product/all": 1}


def test_nothing_slips_past_an_open_change_set(catalog: Catalog) -> None:
    with catalog.change_set() as change_set:
        with pytest.raises(RuntimeError, match="a change set is open"):
            catalog.publish("product", sku="1")
        change_set.publish("product", sku="2")
    with pytest.raises(RuntimeError, match="this change set is committed"):
        change_set.publish("product", sku="3")
    assert catalog.publish("product", sku="1").head_seq == 2


@pytest.mark.parametrize(
    ("context", "scope", "field"), [("fruit", "all", "context"), ("product", "Zone", "scope"), ("product", "", "scope")]
)
def test_a_stream_that_cannot_be_is_a_bad_field(catalog: Catalog, context: str, scope: str, field: str) -> None:
    with pytest.raises(BadField) as caught:
        catalog.publish(context, scope=scope, sku="1")
    assert caught.value.field == field
    with pytest.raises(BadField):
        catalog.log("nonsense")


def test_values_become_the_text_that_a_person_would_type(catalog: Catalog) -> None:
    day = NOW + timedelta(days=1)
    typed = {"sku": "1", "amount": "1.10", "currency": "EUR", "starts_at": "2027-01-16T08:00:00Z"}
    assert catalog.publish("price", sku=1, amount=Decimal("1.10"), currency="EUR", starts_at=day).events == 1
    assert catalog.publish("price", **typed).events == 0
    catalog.publish("product", sku="1", attributes={"b": 1, "a": 2}, name="A")
    assert catalog.publish("product", sku="1", attributes='{"a":2, "b":1}').events == 0
    assert catalog.publish("product", sku="1", name=None).events == 1
    for wrong in ({"sku": 1.5}, {"sku": "1", "name": ["A"]}, {"sku": "1", "name": True}):
        with pytest.raises(BadField, match="must be text or a number"):
            catalog.publish("product", **wrong)


def test_a_plan_changes_nothing_and_is_applied_as_it_is(catalog: Catalog) -> None:
    plan = catalog.plan_import("product", feed(catalog, "sku,name", "1,A", "2,B"))
    assert (plan.impact.new, plan.impact.events, plan.refused, heads(catalog)["product/all"]) == (2, 2, None, 0)
    done = catalog.apply(plan)
    assert done.plan is plan
    assert (done.committed.events, heads(catalog)["product/all"]) == (2, 2)


def test_a_plan_that_others_have_overtaken_is_made_anew(catalog: Catalog) -> None:
    """Applied as it was, it would undo what the other desk has said meanwhile, or delete what it never saw."""
    catalog.publish("product", sku="1", name="A", brand="X")
    plan = catalog.plan_import("product", feed(catalog, "sku,name", "1,B"), full=True)
    with Catalog.open(catalog.path) as other:
        other.publish("product", sku="1", brand="Y")
        other.publish("product", sku="2", name="C")
    done = catalog.apply(plan)
    assert (plan.impact.deleted, done.plan.impact.deleted, done.plan.impact.changed) == (0, 1, 1)
    assert catalog.publish("product", sku="1", name="B", brand="Y").events == 0


def test_the_guards_judge_the_plan_that_is_applied(catalog: Catalog) -> None:
    plan = catalog.plan_import("product", feed(catalog, "sku", "1"), full=True)
    with Catalog.open(catalog.path) as other, other.change_set() as change_set:
        for sku in range(100, 130):
            change_set.publish("product", sku=sku)
    with pytest.raises(GuardTripped) as caught:
        catalog.apply(plan)
    assert (caught.value.guard, caught.value.plan.impact.deleted, plan.refused) == ("share", 30, None)
    assert heads(catalog)["product/all"] == 30


def test_a_plan_grows_old(catalog: Catalog, clock: Clock) -> None:
    ends = NOW + timedelta(milliseconds=PLAN_AGE_MS_MAX)
    file = feed(catalog, "sku,amount,currency,ends_at", f"1,1.00,EUR,{ends.isoformat()}")
    plan = catalog.plan_import("price", file)
    assert plan.impact.new == 1
    clock.ms += PLAN_AGE_MS_MAX + 1
    done = catalog.apply(plan)
    assert (done.plan.impact.expired, done.committed.events) == (1, 0)
    plan = catalog.plan_import("product", feed(catalog, "sku", "1"))
    clock.ms -= 1
    assert catalog.apply(plan).plan is not plan, "a clock that was set back proves nothing"


def test_columns_that_a_context_gains_make_a_plan_anew(tmp_path: Path) -> None:
    narrow, wide = (BUILT_IN.with_declared(parse(TAX % columns)) for columns in (RATE, f"{RATE}, {LABEL}"))
    with Catalog.create(tmp_path / "hq.db", narrow) as catalog:
        catalog.publish("tax", tax_class="full", rate_bp=1900)
        path = feed(catalog, "tax_class,rate_bp", "full,2000", "half,700")
    with Catalog.open(tmp_path / "hq.db", wide) as catalog:
        assert catalog.left_out().keys() == {"tax"}
        assert catalog.import_feed("tax", path).committed.events == 2
        assert (catalog.left_out(), catalog.verify().ok) == ({}, True)


def test_contexts_are_read_from_the_file_that_declares_them(tmp_path: Path) -> None:
    file = tmp_path / "contexts.toml"
    file.write_text(TAX % RATE)
    with Catalog.create(tmp_path / "hq.db", file) as catalog:
        assert "tax/all" in heads(catalog)


def test_a_copy_comes_back_without_what_came_after_it(catalog: Catalog) -> None:
    catalog.publish("product", sku="1")
    copy = catalog.path.with_name("copy.db")
    assert catalog.backup(copy) == copy.stat().st_size
    catalog.publish("product", sku="2")
    epochs = {row.epoch for row in catalog.streams()}
    catalog.close()
    moved_to = Catalog.restore(catalog.path, copy)
    assert moved_to is not None
    with Catalog.open(catalog.path) as restored, Catalog.open(moved_to) as before:
        assert (heads(restored)["product/all"], heads(before)["product/all"]) == (1, 2)
        assert epochs.isdisjoint(row.epoch for row in restored.streams())
