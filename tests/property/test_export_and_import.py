"""What the master exports, imported again with `--full`, changes nothing: any context, any value that HQ takes."""

from __future__ import annotations

import json

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from hq.core import edits
from hq.core.feed_diff import Diff, diff
from hq.core.feed_export import Format, feed_rows, lines
from hq.errors import BadField
from hq.feeds.files import csv_feed, ndjson_rows
from storelink.contract import schedule
from storelink.contract.contexts import PRICE, PRODUCT, Column, Context, Key, Row
from storelink.contract.times import rfc3339
from tests.property.contract_rows import declarations
from tests.registry import registry_of

NOW = 1_800_000_000
FORMATS: tuple[Format, ...] = ("csv", "ndjson")

odd = st.text(st.sampled_from("ab0,;\"\t\r\n \\'\x1b\x85\u2028\ufeff\u00a0é\u0301ß🥐"), max_size=12)
objects = st.dictionaries(odd, st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | odd, max_size=3)


def typed(column: Column) -> st.SearchStrategy[str]:
    """What a person may type into a column; mostly what it takes, and nothing at all."""
    match column.kind:
        case "choice":
            found = st.sampled_from(column.choices)
        case "currency":
            found = st.sampled_from(["EUR", "JPY", "BHD"])
        case "json":
            found = objects.map(json.dumps)
        case "integer" | "amount":
            found = st.integers(column.at_least, min(column.at_most, 10**12)).map(str)
        case "boolean":
            found = st.sampled_from(["true", "no"])
        case "date":
            found = st.dates().map(str)
        case _:
            found = odd
    return st.just("") | found


@st.composite
def rows(draw: st.DrawFn, context: Context) -> dict[Key, Row]:
    """Live rows by key, made of what was typed; what HQ refuses is left out."""
    found: dict[Key, Row] = {}
    for seq in range(1, draw(st.integers(0, 6)) + 1):
        fields = {column.name: draw(typed(column)) for column in (*context.keys, *context.values)}
        try:
            key = edits.key_of(context, fields)
            found[key] = (seq, *key, *edits.edited(context, fields, None, NOW))
        except BadField:
            continue
    return found


@st.composite
def price_rows(draw: st.DrawFn) -> dict[Key, Row]:
    """Price lines of several steps, made by one change after the other; at NOW some of the steps are over."""
    found: dict[Key, Row] = {}
    at = NOW - 50_000
    for _ in range(draw(st.integers(0, 12))):
        at += draw(st.integers(0, 5_000))
        start = draw(st.none() | st.integers(at - 9_000, NOW + 90_000))
        end = draw(st.none() | st.integers((start or at) + 1, NOW + 100_000))
        fields = {
            "sku": draw(st.sampled_from(["1", "2", 'a,"b"'])),
            "kind": draw(st.sampled_from(PRICE.keys[1].choices)),
            "currency": draw(st.sampled_from(["EUR", "EUR", "JPY", "BHD"])),
            "amount": str(draw(st.integers(0, 3))),
        } | {name: as_typed(each) for name, each in (("starts_at", start), ("ends_at", end))}
        key = edits.key_of(PRICE, fields)
        old = found.get(key)
        try:
            after = edits.edited(PRICE, fields, None if old is None else PRICE.values_of(old), at)
        except BadField:
            continue
        found[key] = (1, *key, *after)
    return found


def as_typed(at_s: int | None) -> str:
    return "" if at_s is None else rfc3339(at_s * 1000)


def imported(context: Context, current: dict[Key, Row], file_format: Format, into: dict[Key, Row]) -> Diff:
    """What an import with `--full` makes of an export."""
    ordered = [current[key] for key in sorted(current)]
    documents = (document for row in ordered for document in feed_rows(context, row))
    content = "".join(lines(context, documents, file_format)).encode()
    if file_format == "csv":
        return diff(context, "f", csv_feed(content, "f", context, {}), into, NOW, full=True)
    return diff(context, "f", list(ndjson_rows(content, "f", context, {})), into, NOW, full=True)


def changes_nothing(context: Context, current: dict[Key, Row]) -> None:
    event(f"{min(len(current), 3)} rows")
    for file_format in FORMATS:
        assert imported(context, current, file_format, current).changes == []


@settings(max_examples=200, deadline=None)
@given(rows(PRODUCT))
@example({("1",): (1, "1", None, 'a\r\nb,"c"\x1b[31m', *[None] * 9, '{"a":[1.0,"\\u0001"]}')})
def test_products(current: dict[Key, Row]) -> None:
    changes_nothing(PRODUCT, current)


@settings(max_examples=300, deadline=None)
@given(price_rows())
def test_prices_of_several_steps_over_running_and_to_come(current: dict[Key, Row]) -> None:
    """And an empty master gets every step that is not over."""
    changes_nothing(PRICE, current)
    for file_format in FORMATS:
        found = {
            change.key: change.values for change in imported(PRICE, current, file_format, {}).changes if change.values
        }
        assert {key: schedule.load(str(values[1])) for key, values in found.items()} == {
            key: steps for key, row in current.items() if (steps := not_over(row))
        }


def not_over(row: Row) -> schedule.Schedule:
    return tuple(step for step in schedule.load(str(row[-1])) if not step.over(NOW))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_context_that_a_chain_declares(data: st.DataObject) -> None:
    """And an empty master becomes what the export was made of."""
    context = registry_of(data.draw(declarations()))["thing"]
    current = data.draw(rows(context))
    changes_nothing(context, current)
    for file_format in FORMATS:
        found = imported(context, current, file_format, {})
        assert {change.key: change.values for change in found.changes} == {
            key: context.values_of(row) for key, row in current.items()
        }
