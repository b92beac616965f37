"""The usual rows of a feed, read at once. What is odd goes the long way, by `hq.core.edits`, which is the rule.

Each short way leads to what the long one leads to, or nowhere (tests/property/test_hq_plain.py tries to tell them
apart). What a row has in common with the master was checked when it came in.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter

from contract.contexts import Context, Row
from contract.limits import TEXT_CHARS_MAX
from hq.core.money import minor_units

Fields = Mapping[str, str | None]


class PlainText:
    """Rows that have exactly the fields `names`, of a context without prices."""

    def __init__(self, context: Context, names: tuple[str, ...]) -> None:
        named = [(index, column) for index, column in enumerate(context.values) if column.name in names]
        # Of a single name, itemgetter makes no tuple.
        self._comparable = len(named) > 1
        usable = self._comparable and all(column.kind == "text" for _, column in named)
        self._readable = usable and not any(column.required for column in context.values)
        if self._comparable:
            self._cells_of = itemgetter(*(column.name for _, column in named))
            self._stored_of = itemgetter(*(1 + len(context.keys) + index for index, _ in named))
        self._places = [index for index, _ in named]
        self._narrow = [(n, c.chars_max) for n, (_, c) in enumerate(named) if c.chars_max < TEXT_CHARS_MAX]
        self._blank: Row = (None,) * len(context.values)

    def is_same(self, fields: Fields, before: Row) -> bool:
        """Whether the row names only what the wire row `before` has already; False: look closer."""
        if not self._comparable:
            return False
        cells, stored = self._cells_of(fields), self._stored_of(before)
        # An empty cell clears its field, as None does, which is how the master has it.
        return bool(cells == stored) or ("" in cells and tuple([cell or None for cell in cells]) == stored)

    def values(self, fields: Fields, old: Row | None) -> Row | None:
        """The entity's values after the row, `old` being those before it; None: look closer."""
        if not self._readable:
            return None
        texts = [cell.strip() or None if cell else None for cell in self._cells_of(fields)]
        joined = "".join(filter(None, texts))
        if not joined.isascii() or not joined.isprintable() or len(joined) > TEXT_CHARS_MAX or "\\u0000" in joined:
            return None
        if any(len(texts[n] or "") > chars_max for n, chars_max in self._narrow):
            return None
        values = list(old or self._blank)
        for place, text in zip(self._places, texts, strict=True):
            values[place] = text
        return tuple(values)


class PlainPrice:
    """Rows that name a price from now on, of a context with a schedule; `now` in seconds since 1970."""

    def __init__(self, context: Context, now: int) -> None:
        self._now = now
        kinds = {column.kind: index for index, column in enumerate(context.values, 1 + len(context.keys))}
        self._currency, self._schedule = kinds["currency"], kinds["schedule"]
        self._others = [c.name for c in context.values if c.kind not in ("currency", "schedule")]
        self._endings: dict[tuple[str, str], str | None] = {}

    def is_same(self, fields: Fields, before: Row) -> bool:
        """Whether `before` is one open step of that amount, running now; False: look closer."""
        amount, currency = fields.get("amount"), str(before[self._currency])
        if not amount or fields.get("starts_at") or fields.get("ends_at"):
            return False
        if fields.get("currency", currency) != currency or any(fields.get(name) for name in self._others):
            return False
        ending = self._ending(amount, currency)
        schedule = str(before[self._schedule])
        if ending is None or not schedule.endswith(ending) or schedule.count("[") != 2:
            return False
        return int(schedule[2 : -len(ending)]) <= self._now

    def _ending(self, amount: str, currency: str) -> str | None:
        """How the schedule of one open step of this amount ends; None for what is no amount."""
        if (amount, currency) not in self._endings:
            try:
                self._endings[amount, currency] = f",null,{minor_units(amount.strip(), currency)}]]"
            except ValueError:
                self._endings[amount, currency] = None
        return self._endings[amount, currency]
