"""What a feed changes: `diff` compares its rows with the master's; the one entrance to both ways of comparing.

A feed that is a table is compared column by column (`hq.core.feed_table`), which is several times as fast. A feed with
anything odd in it is looked at row by row, here: only this way can say which row is bad, and why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hq.core import edits
from hq.core.changes import Change
from hq.core.feed_table import FeedRow, Table, compare_columns
from hq.core.part import ALL_ROWS, Part
from hq.core.pricing import Wanted, arrange, overlap
from hq.errors import BadFeed, BadField
from storelink.contract.contexts import Context, Key, Row

__all__ = ["Diff", "FeedRow", "Table", "diff"]


@dataclass(slots=True)
class Diff:
    """The changes that a feed contains, and the count of its rows by what they do.

    Attributes:
        changes: at most one for each entity; deletions last, in order of their keys.
        rows: the rows of the feed; a price line may have several, one for each step.
        new, changed, unchanged: entities that the feed names.
        deleted: entities that a full feed lacks.
        expired: rows that name a price which is over already.
    """

    changes: list[Change] = field(default_factory=list)
    rows: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    deleted: int = 0
    expired: int = 0

    @property
    def named(self) -> int:
        """How many different entities the feed has."""
        return self.new + self.changed + self.unchanged


def diff(
    context: Context,
    name: str,
    rows: Iterable[FeedRow],
    current: Mapping[Key, Row],
    now: int,
    *,
    full: bool,
    part: Part = ALL_ROWS,
) -> Diff:
    """
    Compare a feed with the live rows of its stream.

    Args:
        name: the feed's, for errors.
        current: every live wire row by key.
        now: seconds since 1970.
        full: what the feed lacks of `part` is deleted.
        part: what the feed speaks for; a row outside it is a bad row.

    Raises:
        BadFeed: the first bad row; nothing of the feed may be used.
    """
    found = compare_columns(context, rows, current, now) if isinstance(rows, Table) else None
    if found is None or not part.holds_all(found.keys):
        result, named = _by_row(context, name, rows, current, now, part)
    else:
        total, made = len(found.keys), len(found.changes)
        result = Diff(found.changes, total, found.new, made - found.new, total - made)
        named = found.keys
    if full:
        gone = sorted(part.of(current.keys() - set(named)))
        result.changes += [Change(key, None) for key in gone]
        result.deleted = len(gone)
    return result


def _by_row(
    context: Context, name: str, rows: Iterable[FeedRow], current: Mapping[Key, Row], now: int, part: Part
) -> tuple[Diff, Collection[Key]]:
    """Look at each row by itself; for any feed."""
    reading = _Reading(context, name, now, part)
    result = reading.result
    grouped = reading.by_key(rows)
    for key, group in grouped.items():
        before = current.get(key)
        old = None if before is None else context.values_of(before)
        new = reading.merged(group, old)
        if new == old:
            result.unchanged += 1
            continue
        result.changes.append(Change(key, new))
        if old is None:
            result.new += 1
        else:
            result.changed += 1
    return result, grouped.keys()


class _Reading:
    """One pass over a feed; an error names the row's line."""

    def __init__(self, context: Context, name: str, now: int, part: Part) -> None:
        self.result = Diff()
        self._part = part
        self._context = context
        self._name = name
        self._now = now
        self._priced = edits.is_priced(context)

    def by_key(self, rows: Iterable[FeedRow]) -> dict[Key, list[FeedRow]]:
        """The rows of each entity; a price line may have several, one for each step."""
        grouped: dict[Key, list[FeedRow]] = {}
        for row in rows:
            self.result.rows += 1
            try:
                key = edits.key_of(self._context, row.fields)
            except BadField as error:
                raise self._placed(row, error) from None
            self._check_inside(row, key)
            group = grouped.setdefault(key, [])
            if group and not self._priced:
                problem = f"{key[0]!r} is in line {group[0].line} already"
                raise BadFeed(self._name, row.line, self._context.key_names[0], problem)
            group.append(row)
        return grouped

    def _check_inside(self, row: FeedRow, key: Key) -> None:
        column = self._part.misfit(key) if self._part else None
        if column is not None:
            value = key[self._context.key_names.index(column)]
            hint = f"leave the row out, or add --where {column}={value}"
            problem = f"{value[:40]!r} lies outside of what the feed speaks for: {self._part}"
            raise BadFeed(self._name, row.line, column, problem, hint=hint)

    def merged(self, group: Sequence[FeedRow], old: Row | None) -> Row | None:
        """The entity's values after all its rows; `old` if they name only prices that are over."""
        if not self._priced:
            return self._applied(group[0], None, old)
        wanted = [self._wanted(row, old) for row in group]
        if len(group) > 1:
            self._check_starts(group, wanted)
        self.result.expired += sum(each.over(self._now) for each in wanted)
        values = old
        for index, each in arrange(wanted, self._now):
            values = self._applied(group[index], each, values)
        return values

    def _check_starts(self, group: Sequence[FeedRow], wanted: Sequence[Wanted]) -> None:
        lines: dict[int | None, int] = {}
        for row, each in zip(group, wanted, strict=True):
            if each.starts_at in lines:
                problem = f"line {lines[each.starts_at]} has a price for the same key and start already"
                raise BadFeed(self._name, row.line, "starts_at", problem)
            lines[each.starts_at] = row.line
        clash = overlap(wanted, self._now)
        if clash is not None:
            problem = f"begins before the price in line {group[clash[0]].line} ends"
            raise BadFeed(self._name, group[clash[1]].line, "starts_at", problem)

    def _wanted(self, row: FeedRow, old: Row | None) -> Wanted:
        try:
            return edits.wanted_of(self._context, row.fields, old)
        except BadField as error:
            raise self._placed(row, error) from None

    def _applied(self, row: FeedRow, wanted: Wanted | None, old: Row | None) -> Row:
        try:
            return edits.apply(self._context, row.fields, wanted, old, self._now)
        except BadField as error:
            raise self._placed(row, error) from None

    def _placed(self, row: FeedRow, error: BadField) -> BadFeed:
        return BadFeed(self._name, row.line, error.field, error.problem, hint=error.hint)
