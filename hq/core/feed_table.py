"""A feed as a table: compared with the master column by column, for as long as nothing in it is odd.

Use `hq.core.feed_diff.diff`. `compare_columns` and the row-by-row way agree on every feed that `compare_columns` does
not hand back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from operator import itemgetter
from typing import NamedTuple, cast

from hq.core import edits
from hq.core.changes import Change
from hq.core.pricing import Wanted, reprice
from hq.errors import BadField
from storelink.contract import schedule
from storelink.contract.contexts import Column, Context, Key, Row, Value
from storelink.contract.errors import ContractViolation
from storelink.contract.money import minor_units

ENDS = ("starts_at", "ends_at")


class FeedRow(NamedTuple):
    """One row of a feed, with the line it begins in, from 1."""

    line: int
    fields: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Table:
    """A feed of which every row has the fields `names` and takes one line; the first is line `first_line`."""

    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    first_line: int

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[FeedRow]:
        for line, cells in enumerate(self.rows, self.first_line):
            yield FeedRow(line, dict(zip(self.names, cells, strict=True)))


class Compared(NamedTuple):
    """The keys that a table names, in its order, what it changes of them, and how many of them are new."""

    keys: Sequence[Key]
    changes: list[Change]
    new: int


def compare_columns(context: Context, table: Table, current: Mapping[Key, Row], now: int) -> Compared | None:
    """
    Compare a table with the live rows of its stream.

    Returns:
        None where a row must be looked at by itself: it is bad, names an entity twice or has a dated price.
    """
    try:
        found = _prices(context, table, current, now) if edits.is_priced(context) else _values(context, table, current)
    except (_NotByColumns, ContractViolation, BadField, ValueError):
        return None
    return found if len(set(found.keys)) == len(found.keys) else None


class _NotByColumns(Exception):
    """Only the row-by-row way can say what is odd here, and in which row."""


def _values(context: Context, table: Table, current: Mapping[Key, Row]) -> Compared:
    """Compare rows as they stand with what is stored; check only the rows that differ, column by column."""
    width = 1 + len(context.keys)
    named = [index for index, name in enumerate(context.columns) if index >= width and name in table.names]
    if not named or any(_must_be_set(column) and column.name not in table.names for column in context.values):
        raise _NotByColumns
    same, rows = _without_equal_rows(context, table, current, named)
    columns = _columns(table.names, rows)
    keys = _keys(context, columns, len(rows))
    cells = {index: _value_column(context.values[index - width], columns[context.columns[index]]) for index in named}
    values_of = zip(*(cells.get(index, repeat(None)) for index in range(width, len(context.columns))), strict=False)
    if not current:
        return Compared(keys, [*map(Change, keys, values_of)], len(keys))
    changes, new = [], 0
    for key, values in zip(keys, values_of, strict=False):
        old = current.get(key)
        if old is None:
            changes.append(Change(key, values))
            new += 1
            continue
        after = tuple(value if index in cells else old[index] for index, value in enumerate(values, start=width))
        if after != old[width:]:
            changes.append(Change(key, after))
    return Compared(same + keys, changes, new)


def _must_be_set(column: Column) -> bool:
    """Whether a new entity must get a value in this column."""
    return column.required or column.default is not None


def _without_equal_rows(
    context: Context, table: Table, current: Mapping[Key, Row], named: Sequence[int]
) -> tuple[list[Key], Sequence[Sequence[str]]]:
    """The keys of the rows that are equal to what is stored, and the other rows. Stored rows were checked before."""
    if not current or not set(context.key_names) <= set(table.names):
        return [], table.rows
    columns = _columns(table.names, table.rows)
    stored_cells = itemgetter(1, *named)
    keys = list(zip(*(columns[name] for name in context.key_names), strict=True))
    given = (
        [cell or None for cell in cells] if "" in cells else cells
        for cells in (columns[context.columns[index]] for index in named)
    )
    same, others = [], []
    for key, cells, row in zip(keys, zip(columns[context.key_names[0]], *given, strict=True), table.rows, strict=True):
        old = current.get(key)
        if old is not None and stored_cells(old) == cells:
            same.append(key)
        else:
            others.append(row)
    return same, others


def _prices(context: Context, table: Table, current: Mapping[Key, Row], now: int) -> Compared:
    """Undated prices, one for each price line, in the currency it has already: a few schedules stand for all."""
    columns = _columns(table.names, table.rows)
    if [column.kind for column in context.values] != ["currency", "schedule"] or "amount" not in columns:
        raise _NotByColumns
    if "currency" not in columns or any(cell.strip() for name in ENDS for cell in set(columns.get(name, ()))):
        raise _NotByColumns
    minor_of, rescheduled = cache(minor_units), cache(_rescheduled)
    keys = _keys(context, columns, len(table))
    currencies = cast(Sequence[str], _value_column(context.values[0], columns["currency"]))
    changes, new = [], 0
    for key, amount, currency in zip(keys, columns["amount"], currencies, strict=True):
        minor = minor_of(amount.strip(), currency)
        old = current.get(key)
        if old is not None and old[-2] != currency:
            raise _NotByColumns
        before = "" if old is None else str(old[-1])
        after = rescheduled(before, minor, now)
        if after != before:
            changes.append(Change(key, (currency, after)))
            new += old is None
    return Compared(keys, changes, new)


def _rescheduled(old_text: str, amount_minor: int, now: int) -> str:
    old = schedule.load(old_text) if old_text else ()
    new = reprice(old, Wanted(amount_minor, holds_from=now), now)
    return old_text if old_text and new == old else schedule.dump(new)


def _columns(names: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Sequence[str]]:
    return dict(zip(names, zip(*rows, strict=True) if rows else repeat(()), strict=False))


def _keys(context: Context, columns: Mapping[str, Sequence[str]], rows: int) -> list[Key]:
    return list(zip(*(_key_column(column, columns, rows) for column in context.keys), strict=True))


def _key_column(column: Column, columns: Mapping[str, Sequence[str]], rows: int) -> Sequence[str]:
    cells = columns.get(column.name, ("",) * rows)
    if column.default is not None and "" in cells:
        cells = [cell or str(column.default) for cell in cells]
    return cast(Sequence[str], _value_column(column, cells))


def _value_column(column: Column, cells: Sequence[str]) -> Sequence[Value]:
    """The column's values; each different one is checked, all of them together where it is plain text."""
    different = list(set(cells))
    stripped = [*map(str.strip, different)]
    if "" in stripped and column.required:
        raise _NotByColumns
    values: list[Value]
    if column.kind != "text":
        values = [edits.checked(column, text) if text else None for text in stripped]
    elif edits.are_texts(column, stripped):
        values = [text or None for text in stripped]
    else:
        raise _NotByColumns
    if values == different:
        return cells
    value_of = dict(zip(different, values, strict=True))
    return [value_of[cell] for cell in cells]
