"""A feed as a table: compared with the master by whole columns, for as long as nothing in it is odd.

`compared` and the row-by-row path of `hq.core.feed` agree on every feed that `compared` does not hand back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from operator import itemgetter
from typing import Any, NamedTuple, cast

from contract import schedule
from contract.contexts import Column, Context, Key, Row
from contract.errors import ContractViolation
from hq.core import edits
from hq.core.changes import Change
from hq.core.money import minor_units
from hq.core.pricing import Wanted, reprice
from hq.errors import BadField

Texts = Sequence[str | None]


class FeedRow(NamedTuple):
    """One row of a feed, with the line it begins in, from 1."""

    line: int
    fields: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Table:
    """A feed of which every row has the fields `names` and takes one line; the first row begins in `first_line`."""

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


def compared(context: Context, table: Table, current: Mapping[Key, Row], now: int) -> Compared | None:
    """
    Compare a table with the live rows of its stream.

    Returns:
        None where a row needs a look of its own: it is bad, names an entity twice or has a dated price.
    """
    if not table.rows:
        return None
    try:
        columns = dict(zip(table.names, zip(*table.rows, strict=True), strict=True))
        keys = list(zip(*(_key_column(c, columns.get(c.name), len(table)) for c in context.keys), strict=True))
        if len(set(keys)) != len(keys):
            return None
        if edits.is_priced(context):
            return _prices(context, columns, keys, current, now)
        return _values(context, columns, keys, current)
    except (_NeedsALook, ContractViolation, BadField, ValueError):
        return None


class _NeedsALook(Exception):
    """Only the row-by-row path can tell what this is, and where."""


def _values(
    context: Context, columns: Mapping[str, Sequence[str]], keys: list[Key], current: Mapping[Key, Row]
) -> Compared:
    """Compare what the feed names of each row with what is stored, as one tuple with another."""
    named = {
        index: _value_column(column, columns[column.name], (row[index] for row in current.values()))
        for index, column in enumerate(context.values, start=1 + len(context.keys))
        if column.name in columns
    }
    width = 1 + len(context.keys)
    if not named or any(column.required and column.name not in columns for column in context.values):
        raise _NeedsALook
    everything = (named.get(index, repeat(None)) for index in range(width, width + len(context.values)))
    stored_cells = itemgetter(1, *named)
    changes, new = [], 0
    wide = zip(*everything, strict=False)
    cells_of = zip((key[0] for key in keys), *named.values(), strict=True)
    for key, cells, values in zip(keys, cells_of, wide, strict=False):
        old = current.get(key)
        if old is None:
            changes.append(Change(key, values))
            new += 1
        elif stored_cells(old) != cells:
            kept = list(old)
            for index, cell in zip(named, cells[1:], strict=True):
                kept[index] = cell
            changes.append(Change(key, tuple(kept[width:])))
    return Compared(keys, changes, new)


def _prices(
    context: Context, columns: Mapping[str, Sequence[str]], keys: list[Key], current: Mapping[Key, Row], now: int
) -> Compared:
    """Undated prices, one for each price line, in the currency it has already: a few schedules stand for all."""
    named = [column.name for column in context.values if column.kind != "schedule"]
    if named != ["currency"] or not {"amount", "currency"} <= columns.keys():
        raise _NeedsALook
    if any(any(_stripped(columns.get(name, ()))) for name in ("starts_at", "ends_at")):
        raise _NeedsALook
    minor_of, rescheduled = cache(minor_units), cache(_rescheduled)
    at = {column.kind: index for index, column in enumerate(context.values, start=1 + len(context.keys))}
    currencies = _value_column(context.values[at["currency"] - 1 - len(context.keys)], columns["currency"], ())
    changes, new = [], 0
    for key, amount, currency in zip(keys, _required(_stripped(columns["amount"])), currencies, strict=True):
        minor = minor_of(amount, cast(str, currency))
        old = current.get(key)
        if old is None:
            changes.append(Change(key, _priced(context, currency, rescheduled("", minor, now))))
            new += 1
            continue
        if old[at["currency"]] != currency:
            raise _NeedsALook
        before = old[at["schedule"]]
        after = rescheduled(cast(str, before), minor, now)
        if after != before:
            changes.append(Change(key, _priced(context, currency, after)))
    return Compared(keys, changes, new)


def _priced(context: Context, currency: str | None, steps: str) -> Row:
    return (currency, steps) if context.values[0].kind == "currency" else (steps, currency)


def _rescheduled(old_text: str, amount_minor: int, now: int) -> str:
    old = schedule.load(old_text) if old_text else ()
    new = reprice(old, Wanted(amount_minor, holds_from=now), now)
    return old_text if old_text and new == old else schedule.dump(new)


def _key_column(column: Column, cells: Sequence[str] | None, rows: int) -> Sequence[str]:
    texts = (column.default,) * rows if cells is None else [cell or column.default for cell in cells]
    return _required(_value_column(column, [text or "" for text in texts], ()))


def _value_column(column: Column, cells: Sequence[str], stored: Iterable[Any]) -> Texts:
    """The column's values, checked together; what is stored already was checked when it came in."""
    texts = _stripped(cells)
    found = [text for text in texts if text]
    if column.required and len(found) != len(texts):
        raise _NeedsALook
    if column.kind == "json":
        known = set(stored)
        return [text if text is None or text in known else edits.checked(column, text) for text in texts]
    if column.kind in ("choice", "currency"):
        for text in set(found):
            edits.checked(column, text)
    elif not edits.are_texts(column, found):
        raise _NeedsALook
    return texts


def _stripped(cells: Sequence[str]) -> Texts:
    return [cell.strip() or None for cell in cells]


def _required(texts: Texts) -> Sequence[str]:
    if not all(texts):
        raise _NeedsALook
    return cast(Sequence[str], texts)
