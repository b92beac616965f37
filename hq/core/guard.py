"""The guards of a feed that deletes what it lacks: what nobody does on purpose without saying so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from hq.core.changes import Change
from storelink.contract.contexts import Context, Key

Guard = Literal["empty", "share", "half", "choice", "max_deletes", "max_changes"]

DELETED_PERCENT_MAX = 10
"""A feed may delete so much of the rows that it speaks for."""

DELETED_FEW = 20
"""So many may go whatever their share: a small catalog is not asked about each row."""

DELETED_FEW_OF_HALF = 10
"""So many may go although the feed has fewer than half of the rows: a feed that was cut off is noticed earlier."""


@dataclass(frozen=True, slots=True)
class Impact:
    """
    What a feed would do to the rows that it speaks for.

    `held` of them are there, the feed names `named` different ones, `deleted` would go. `dropped` is a choice, such as
    `kind=promotion`, of which more than DELETED_FEW rows are there and all would go, without one that comes.
    """

    held: int
    named: int
    deleted: int
    dropped: str = ""


class Refused(NamedTuple):
    """Why a feed is not imported: a sentence, and what to type."""

    guard: Guard
    problem: str
    hint: str


def judge(impact: Impact) -> Guard | None:
    """Which guard stops a feed that was not said to be meant; None: it may pass."""
    if not impact.deleted:
        return None
    if not impact.named:
        return "empty"
    if impact.deleted > DELETED_FEW and impact.deleted * 100 > impact.held * DELETED_PERCENT_MAX:
        return "share"
    if impact.deleted > DELETED_FEW_OF_HALF and impact.named * 2 < impact.held:
        return "half"
    return "choice" if impact.dropped else None


def sentence(guard: Guard, impact: Impact, rows_of: str) -> str:
    """What the guard says, after the feed's name; `rows_of` names what the feed speaks for, such as `price/all`."""
    held, deleted = f"{impact.held:,}", f"{impact.deleted:,}"
    if guard == "empty":
        return f"has no rows; --full would delete all of {rows_of}: {held} row{'s' if impact.held > 1 else ''}"
    would = f"would delete {deleted} of the {held} rows of {rows_of}"
    if guard == "share":
        return f"{would}, more than {DELETED_PERCENT_MAX} %"
    if guard == "half":
        return f"{would}: it has {impact.named:,}, fewer than half"
    return f"{would}, among them all with {impact.dropped}: it has none of those"


def dropped_choice(context: Context, held: Iterable[Key], changes: Collection[Change]) -> str:
    """The first choice of a key column that a feed makes die out, as `kind=promotion`; empty if there is none."""
    for at, column in enumerate(context.keys):
        if column.kind != "choice":
            continue
        gone = Counter(key[at] for key, values in changes if values is None)
        for value, count in gone.items():
            if count <= DELETED_FEW or any(key[at] == value for key, values in changes if values is not None):
                continue
            if sum(key[at] == value for key in held) == count:
                return f"{column.name}={value}"
    return ""


def only_choice(context: Context, held: Collection[Key], changes: Collection[Change]) -> str:
    """The one choice that all rows of a feed share while others would go: what the feed may have been meant for."""
    gone = {key for key, values in changes if values is None}
    named = (set(held) - gone) | {key for key, values in changes if values is not None}
    for at, column in enumerate(context.keys):
        shared = {key[at] for key in named}
        if column.kind == "choice" and len(shared) == 1 and not shared >= {key[at] for key in gone}:
            return f"{column.name}={shared.pop()}"
    return ""
