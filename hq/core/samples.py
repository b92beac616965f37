"""A few of a feed's changes, for people to look at: the entities, with their values before and after.

`document` spells them for programs, `text_lines` for a terminal of WIDTH columns.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from hq.core.changes import Change
from storelink.contract import schedule
from storelink.contract.contexts import Column, Context, Key, Row, Value
from storelink.contract.money import money_text
from storelink.contract.schedule import TIME_MAX, Schedule
from storelink.contract.times import rfc3339

Kind = Literal["new", "changed", "deleted"]
KINDS: tuple[Kind, ...] = ("new", "changed", "deleted")

SAMPLES_MAX = 20
"""Of each kind of change."""

WIDTH = 80
KEY_CHARS_SHOWN = 40
VALUE_CHARS_SHOWN = 60
STEPS_SHOWN = 3
LINES_OF_ONE_MAX = 8
NONE = "none"


class Sample(NamedTuple):
    """One change: the entity's values in declared order; `old` None: it is new; `new` None: it goes."""

    key: Key
    old: Row | None
    new: Row | None


Samples = dict[Kind, list[Sample]]


def samples(context: Context, changes: Iterable[Change], current: Mapping[Key, Row]) -> Samples:
    """The first SAMPLES_MAX changes of each kind, in their order."""
    found: Samples = {kind: [] for kind in KINDS}
    for key, values in changes:
        before = current.get(key)
        kind: Kind = "deleted" if values is None else "new" if before is None else "changed"
        if len(found[kind]) < SAMPLES_MAX:
            found[kind].append(Sample(key, None if before is None else context.values_of(before), values))
    return found


def document(context: Context, found: Samples) -> dict[str, list[dict[str, Any]]]:
    """For JSON: {kind: [{"key", "changed": names of columns, "old", "new": values that are set, or None}]}."""
    return {
        kind: [
            {
                "key": list(key),
                "changed": [n for n, a, b in zip(context.value_names, old or (), new or (), strict=False) if a != b],
                "old": None if old is None else _named(context, old),
                "new": None if new is None else _named(context, new),
            }
            for key, old, new in found[kind]
        ]
        for kind in KINDS
    }


def _named(context: Context, values: Row) -> dict[str, Any]:
    return {
        column.name: steps_document(str(value)) if column.kind == "schedule" else value
        for column, value in zip(context.values, values, strict=True)
        if value is not None
    }


def steps_document(text: str) -> list[dict[str, Any]]:
    """A stored schedule, for JSON."""
    return [
        {
            "starts_at": time_text(step.starts_at),
            "ends_at": None if step.ends_at is None else time_text(step.ends_at),
            "amount_minor": step.amount_minor,
        }
        for step in schedule.load(text)
    ]


def text_lines(context: Context, found: Samples, counts: Mapping[Kind, int], now: int) -> Iterator[str]:
    """
    For a terminal: lines of at most WIDTH columns.

    Args:
        counts: how many changes of each kind there are.
        now: seconds since 1970; steps of a price that are over are left out.
    """
    for kind, few in found.items():
        if few:
            yield f"{kind}:"
        for sample in few:
            shown = f"{_clipped(_quoted('/'.join(sample.key)), KEY_CHARS_SHOWN)}  {_shown(context, sample, now)}"
            yield from textwrap.wrap(
                shown,
                WIDTH,
                initial_indent="  ",
                subsequent_indent="      ",
                max_lines=LINES_OF_ONE_MAX,
                placeholder=" …",
                break_on_hyphens=False,
            )
        if counts[kind] > len(few):
            yield f"  … and {counts[kind] - len(few):,} more"


def _shown(context: Context, sample: Sample, now: int) -> str:
    """`1.99 EUR -> 2.19 EUR`, or `name: "A" -> "B", brand: "C" -> none`; one side only of what is new or goes."""
    blank = (None,) * len(context.values)
    priced = any(column.kind == "schedule" for column in context.values)
    parts = []
    if priced:
        old, new = _schedule_of(context, sample.old), _schedule_of(context, sample.new)
        parts.append(_both(sample, _price(old, new, now), _price(new, old, now)))
    for column, a, b in zip(context.values, sample.old or blank, sample.new or blank, strict=True):
        if a != b and not (priced and column.kind in ("schedule", "currency")):
            parts.append(f"{column.name}: {_both(sample, *_apart(_text(column, a), _text(column, b)))}")
    return ", ".join(parts)


def _both(sample: Sample, old: str, new: str) -> str:
    if sample.old is None:
        return new
    return old if sample.new is None else f"{old} -> {new}"


def _schedule_of(context: Context, values: Row | None) -> tuple[str, Schedule]:
    """Currency and steps; no steps where there is no entity."""
    if values is None:
        return "", ()
    named = {column.kind: str(value) for column, value in zip(context.values, values, strict=True)}
    return named["currency"], schedule.load(named["schedule"])


def _price(of: tuple[str, Schedule], other: tuple[str, Schedule], now: int) -> str:
    """The steps that are to come and that the other schedule lacks; all of them if it lacks none."""
    currency, steps = of
    left = [step for step in steps if not step.over(now)] or list(steps[-1:])
    differ = [step for step in left if currency != other[0] or step not in other[1]] or left
    texts = []
    for step in differ[:STEPS_SHOWN]:
        begins = f" from {time_text(step.starts_at)}" if step.starts_at > now else ""
        ends = "" if step.ends_at is None else f" until {time_text(step.ends_at)}"
        texts.append(f"{money_text(step.amount_minor, currency)}{begins}{ends}")
    if len(differ) > STEPS_SHOWN:
        texts.append(f"and {len(differ) - STEPS_SHOWN} more")
    return ", ".join(texts) or NONE


def time_text(seconds: int) -> str:
    """A time of a schedule, RFC 3339; behind the year 9999 the seconds themselves."""
    return rfc3339(seconds * 1000) if seconds <= TIME_MAX else str(seconds)


def _text(column: Column, value: Value) -> str:
    if value is None:
        return NONE
    if column.kind == "amount" and isinstance(value, int):
        return money_text(value, column.currency)
    if column.kind == "boolean":
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) and column.kind != "json" else str(value)


def _apart(old: str, new: str) -> tuple[str, str]:
    """Both clipped, so that the place where they begin to differ is seen."""
    same = next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    long = max(len(old), len(new)) > VALUE_CHARS_SHOWN
    start = max(same - VALUE_CHARS_SHOWN // 2, 0) if long else 0
    cut = "…" if start else ""
    return _clipped(cut + old[start:], VALUE_CHARS_SHOWN), _clipped(cut + new[start:], VALUE_CHARS_SHOWN)


def _quoted(text: str) -> str:
    """Control characters escaped, as `hq log` shows a key."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _clipped(text: str, chars: int) -> str:
    return text if len(text) <= chars else f"{text[: chars - 1]}…"
