"""What a feed changes: its rows compared with the master, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from contract.contexts import Context, Key, Row
from hq.core import edits
from hq.core.changes import Change
from hq.core.pricing import Wanted, arrange
from hq.errors import BadFeed, BadField


class FeedRow(NamedTuple):
    """One row of a feed, with the line it begins in, from 1."""

    line: int
    fields: dict[str, str | None]


@dataclass(slots=True)
class Diff:
    """The changes that a feed contains, and what became of its rows. `expired` rows name a price that is over."""

    changes: list[Change] = field(default_factory=list)
    rows: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    deleted: int = 0
    expired: int = 0


def diff(
    context: Context, name: str, rows: Iterable[FeedRow], current: Mapping[Key, Row], now: int, *, full: bool
) -> Diff:
    """
    Compare a feed with the live rows of its stream.

    Args:
        name: the feed's, for errors.
        current: every live wire row by key.
        full: what the feed lacks is deleted.

    Raises:
        BadFeed: the first bad row; nothing of the feed may be used.
    """
    result = Diff()
    grouped = _by_key(context, name, rows, result)
    for key, group in grouped.items():
        before = current.get(key)
        old = None if before is None else context.values_of(before)
        new = _merged(context, name, group, old, now, result)
        if new == old or new is None:
            result.unchanged += 1
            continue
        result.changes.append(Change(key, new))
        if old is None:
            result.new += 1
        else:
            result.changed += 1
    if full:
        gone = sorted(current.keys() - grouped.keys())
        result.changes += [Change(key, None) for key in gone]
        result.deleted = len(gone)
    return result


def _by_key(context: Context, name: str, rows: Iterable[FeedRow], result: Diff) -> dict[Key, list[FeedRow]]:
    many = edits.is_priced(context)
    grouped: dict[Key, list[FeedRow]] = {}
    for row in rows:
        result.rows += 1
        try:
            key = edits.key_of(context, row.fields)
        except BadField as error:
            raise _placed(name, row, error) from None
        group = grouped.setdefault(key, [])
        if group and not many:
            field = context.key_names[0]
            raise BadFeed(name, row.line, field, f"{key[0]!r} stands in line {group[0].line} already")
        group.append(row)
    return grouped


def _merged(
    context: Context, name: str, group: Sequence[FeedRow], old: Row | None, now: int, result: Diff
) -> Row | None:
    """The entity's values after all its rows; None if they name only prices that are over, and it is new."""
    if not edits.is_priced(context):
        return _applied(context, name, group[0], None, old, now)
    wanted = [_wanted(context, name, row, old) for row in group]
    starts: dict[int | None, FeedRow] = {}
    for row, each in zip(group, wanted, strict=True):
        if each.starts_at in starts:
            other = starts[each.starts_at].line
            raise BadFeed(name, row.line, "starts_at", f"line {other} has a price for the same key and start already")
        starts[each.starts_at] = row
    result.expired += sum(each.over(now) for each in wanted)
    values = old
    for index, each in arrange(wanted, now):
        values = _applied(context, name, group[index], each, values, now)
    return values


def _wanted(context: Context, name: str, row: FeedRow, old: Row | None) -> Wanted:
    try:
        return edits.wanted_of(context, row.fields, old)
    except BadField as error:
        raise _placed(name, row, error) from None


def _applied(context: Context, name: str, row: FeedRow, wanted: Wanted | None, old: Row | None, now: int) -> Row:
    try:
        return edits.apply(context, row.fields, wanted, old, now)
    except BadField as error:
        raise _placed(name, row, error) from None


def _placed(name: str, row: FeedRow, error: BadField) -> BadFeed:
    return BadFeed(name, row.line, error.field, error.problem, hint=error.hint)
