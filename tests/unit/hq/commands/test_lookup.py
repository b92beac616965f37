"""HQ looks at its own master: `get`, `price`, `search` and `export`, as the library and as they are typed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hq import BadField, Catalog
from hq.cli import main

NOW_S = 1_800_000_000  # 2027-01-15T08:00:00Z
CONTEXTS = """
[[context]]
name = "tax"
keys = [{ name = "tax_class" }, { name = "country", choices = ["DE", "FR"], default = "DE" }]
values = [
    { name = "rate_bp", kind = "integer", required = true },
    { name = "fee", kind = "amount", currency = "EUR" },
    { name = "reduced", kind = "boolean" },
    { name = "since", kind = "date" },
    { name = "label", default = "none" },
]
"""
ODD = 'two\r\nlines, "quoted"; \x1b[31m\N{CROISSANT}'


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    (tmp_path / "contexts.toml").write_text(CONTEXTS)
    with Catalog.create(tmp_path / "hq.db", tmp_path / "contexts.toml", clock=lambda: NOW_S * 1000) as catalog:
        with catalog.change_set() as change_set:
            change_set.publish("product", sku="4011", name="Café moulu", gtin="4006381333931", description=ODD)
            change_set.publish("product", sku="4012", name="CAFÉ en grains", attributes={"b": [1.0, None], "a": "é"})
            change_set.publish("product", sku="5000", name="Brötchen")
            change_set.publish("product", sku="5001", name="gone")
            for kind, amount, starts, ends in (
                ("regular", "1.99", None, None),
                ("regular", "2.19", "2027-02-01", None),
                ("promotion", "1.49", "2027-01-20", "2027-01-27"),
            ):
                change_set.publish(
                    "price", sku="4011", kind=kind, amount=amount, currency="EUR", starts_at=starts, ends_at=ends
                )
            change_set.publish("price", scope="zone-west", sku="4011", amount="1.89", currency="EUR")
            change_set.publish("tax", tax_class="full", rate_bp=1900, fee="0.05", reduced=False, since="2020-02-29")
            change_set.publish("tax", tax_class="low", country="FR", rate_bp=-1, label=None)
        catalog.delete("product", sku="5001")
        yield catalog


@pytest.fixture
def hq(catalog: Catalog) -> Callable[..., Result]:
    environ = {
        "HQ_DB": str(catalog.path),
        "HQ_CONFIG": "",
        "HQ_BROKER": "mqtt://localhost:1",
        "HQ_CONTEXTS": str(catalog.path.with_name("contexts.toml")),
    }
    return lambda *words: CliRunner().invoke(main, words, env=environ, catch_exceptions=False)


Typed = Callable[..., Result]


# get


def test_get_gives_every_column_by_name(catalog: Catalog) -> None:
    product = catalog.get("product", "4012")
    assert product is not None
    assert (product["scope"], product["seq"], product["name"], product["brand"]) == ("all", 2, "CAFÉ en grains", None)
    assert product["attributes"] == {"a": "é", "b": [1.0, None]}
    price = catalog.get("price", "4011", scope="zone-west")
    assert price is not None
    assert price["schedule"] == [{"starts_at": "2027-01-15T08:00:00Z", "ends_at": None, "amount_minor": 189}]
    tax = catalog.get("tax", ["full"])
    assert tax is not None
    assert (tax["country"], tax["fee"], tax["reduced"], tax["since"]) == ("DE", 5, False, "2020-02-29")


def test_get_of_what_is_not_there_is_none_and_of_what_cannot_be_is_refused(catalog: Catalog) -> None:
    assert (catalog.get("product", "5001"), catalog.get("product", "1")) == (None, None)
    for given, says in (
        (("nope", "1"), "context: 'nope' is not one of"),
        (("product", ("1", "2")), "key: has 2 values"),
        (("price", ("1", "weekly")), "kind: 'weekly' must be one of"),
    ):
        with pytest.raises(BadField, match=says):
            catalog.get(*given)
    with pytest.raises(BadField) as caught:
        catalog.get("price", "4011", scope="zone-wets")
    assert (str(caught.value), caught.value.hint) == (
        "scope: HQ has no stream price/zone-wets",
        "did you mean zone-west?",
    )


def test_get_on_a_terminal_has_80_columns_and_no_control_character(catalog: Catalog, hq: Typed) -> None:
    catalog.publish("product", sku="4011", brand="word " * 60)
    shown = hq("get", "product", "4011").stdout
    assert 'description   two??lines, "quoted"; ?[31m🥐\n' in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert json.loads(hq("get", "product", "4011", "--json").stdout)["description"] == ODD
    missing = hq("get", "price", "4011", "clearance")
    assert (missing.exit_code, missing.stderr) == (1, "error: HQ has no price 4011 clearance in all\n")


# price


def amounts(catalog: Catalog, **said: Any) -> list[tuple[bool, int]]:
    return [(each.won, each.step.amount_minor) for each in catalog.prices("4011", **said).candidates]


def test_prices_are_judged_as_in_a_store_that_follows_the_scope(catalog: Catalog) -> None:
    assert amounts(catalog) == [(True, 199), (False, 149), (False, 219)]
    assert amounts(catalog, at="2027-01-20") == [(True, 149), (False, 199), (False, 219)]
    assert amounts(catalog, at="2027-03-01")[0] == (True, 219)
    assert amounts(catalog, at="2027-01-20", kind="regular")[0] == (True, 199)
    assert amounts(catalog, at="2026-01-01") == [(False, 199), (False, 149), (False, 219)]
    west = catalog.prices("4011", scope="zone-west", at="2027-01-20")
    assert west.in_force is not None
    assert (west.in_force.line.scope, west.in_force.step.amount_minor, west.other_scopes) == ("zone-west", 189, ())
    assert west.in_force.why == "the scope zone-west wins over all"
    assert catalog.prices("4011", scope="store-1").other_scopes == ("zone-west",)
    for said in ({"at": "soon"}, {"at": "2027-01-20T08:00"}, {"kind": "weekly"}, {"scope": "A b"}):
        with pytest.raises(BadField):
            catalog.prices("4011", **said)


def test_price_says_what_is_in_force_and_where_else_there_are_prices(hq: Typed) -> None:
    shown = hq("price", "4011", "--at", "2027-01-21T09:00:00+01:00").stdout
    assert shown.splitlines()[:4] == [
        "4011 costs 1.49 EUR in all at 2027-01-21T08:00:00Z",
        "->       1.49 EUR  promotion  all",
        "     from 2027-01-20T00:00:00Z to 2027-01-27T00:00:00Z",
        "     won: a promotion wins over a regular price",
    ]
    assert shown.endswith("other scopes have prices, too: zone-west\n")
    assert hq("price", "4011", "--at", "2026-01-01").stdout.startswith(
        "4011 has no price in all at 2026-01-01T00:00:00Z"
    )
    none = hq("price", "4012\x1b")
    assert (none.exit_code, none.stderr) == (1, "error: HQ has no price line of 4012? for all\n")
    elsewhere = hq("price", "4011", "--kind", "clearance", "--scope", "store-1")
    assert elsewhere.stderr.endswith("hint: other scopes have some: zone-west\n")
    document = json.loads(hq("price", "4011", "--at", "2026-01-01", "--json").stdout)
    assert (document["price"], len(document["candidates"]), document["other_scopes"]) == (None, 3, ["zone-west"])


# search


def skus(catalog: Catalog, text: str, **said: Any) -> tuple[list[str], bool]:
    found = catalog.search(text, **said)
    return [each["sku"] for each in found.products], found.more


def test_search_wants_every_word_and_no_accent(catalog: Catalog) -> None:
    assert skus(catalog, "cafe") == (["4011", "4012"], False)
    assert skus(catalog, "GRAINS caf\u00c9") == (["4012"], False)
    assert skus(catalog, "8133 4011") == (["4011"], False)
    assert skus(catalog, "brotchen") == (["5000"], False)
    assert skus(catalog, "gone") == ([], False)
    assert skus(catalog, "cafe", limit=1) == (["4011"], True)
    for text, said in ((" ", {}), ("a", {"limit": 0}), ("a", {"limit": 1001}), ("a", {"scope": "zone-x"})):
        with pytest.raises(BadField):
            catalog.search(text, **said)


def test_search_says_when_there_is_more_and_when_there_is_nothing(hq: Typed) -> None:
    one = hq("search", "cafe", "--limit", "1")
    assert one.stdout == "4011             4006381333931  Café moulu\n"
    assert one.stderr == "there are more than 1: name more words, or raise --limit\n"
    assert (hq("search", "nothing").stdout, hq("search", "nothing").stderr) == ("", "nothing found\n")
    assert json.loads(hq("search", "moulu", "--json").stdout)["products"][0]["gtin"] == "4006381333931"


# export


@pytest.mark.parametrize("file_format", ["csv", "ndjson"])
@pytest.mark.parametrize("stream", ["product/all", "price/all", "price/zone-west", "tax/all"])
def test_an_export_imported_with_full_changes_nothing(
    catalog: Catalog, hq: Typed, tmp_path: Path, stream: str, file_format: str
) -> None:
    context, scope = stream.split("/")
    file = tmp_path / f"copy.{file_format}"
    rows = catalog.status().streams[stream].rows
    assert hq("export", context, str(file), "--scope", scope).exit_code == 0
    plan = catalog.plan_import(context, file, scope=scope, full=True)
    assert (plan.impact.events, plan.impact.unchanged) == (0, rows)
    assert hq("export", context, "--scope", scope, "--format", file_format).stdout_bytes == file.read_bytes()
    with Catalog.create(tmp_path / "other.db", tmp_path / "contexts.toml", clock=lambda: NOW_S * 1000) as other:
        other.import_feed(context, file, scope=scope, full=True)
        assert other.status().streams[stream].rows == rows
        assert list(other.export(context, scope=scope)) == list(catalog.export(context, scope=scope))


def test_an_export_is_one_snapshot_whatever_is_committed_meanwhile(catalog: Catalog, monkeypatch: Any) -> None:
    monkeypatch.setattr("hq.lookup.ROWS_PER_READ", 1)
    lines = catalog.export("product", file_format="ndjson")
    first = next(lines)
    catalog.publish("product", sku="4999", name="new")
    catalog.delete("product", sku="5000")
    assert [json.loads(line)["sku"] for line in (first, *lines)] == ["4011", "4012", "5000"]


def test_an_export_leaves_a_complete_file_or_none(catalog: Catalog, hq: Typed, tmp_path: Path) -> None:
    file = tmp_path / "copy.csv"
    file.write_text("mine")
    there = hq("export", "price", str(file))
    assert (there.exit_code, file.read_text()) == (1, "mine")
    assert there.stderr == f"error: {file} is there already\nhint: name another file, or remove it first\n"
    nowhere = hq("export", "price", str(tmp_path / "none" / "copy.csv"))
    assert (nowhere.exit_code, "No such file or directory" in nowhere.stderr) == (1, True)
    assert hq("export", "price", str(tmp_path / "x.csv"), "--scope", "zone-x").exit_code == 1
    with closing(sqlite3.connect(catalog.path)) as db, db:
        db.execute("UPDATE master_price SET schedule = 'x' WHERE kind = 'regular' AND scope = 'all'")
    assert hq("export", "price", str(tmp_path / "y.csv")).exit_code == 1
    assert [path.name for path in tmp_path.glob("*.csv*")] == ["copy.csv"]
    with pytest.raises(BadField, match="format: 'xml'"):
        catalog.export("price", file_format="xml")  # type: ignore[arg-type]
