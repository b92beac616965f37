"""The guards of an import: they stop a feed that deletes more than a person would delete without saying so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from hq.core.changes import Change
from storelink.contract.contexts import Context, Key

Guard = Literal["empty", "share", "half", "choice", "max_deletes", "max_changes"]

DELETED_PERCENT_MAX = 10
"""A feed may delete this share of the rows that it speaks for."""

DELETED_FEW = 20
"""A feed may delete this many rows whatever their share: nobody is asked about each row of a small catalog."""

DELETED_FEW_OF_HALF = 10
"""A feed with fewer than half of the rows may delete only this many: it may be a file that was cut off."""


@dataclass(frozen=True, slots=True)
class Deletions:
    """
    What a full feed would delete of the rows that it speaks for.

    Attributes:
        held: how many of these rows the master has.
        named: how many different entities the feed names.
        deleted: how many rows would go.
        dropped: a choice, such as `kind=promotion`, of which the master has more than DELETED_FEW rows, all of which
            would go, and the feed brings none; empty if there is no such choice.
    """

    held: int
    named: int
    deleted: int
    dropped: str = ""


class Refused(NamedTuple):
    """Why a feed may not be imported: the guard by its name, a sentence, and what to type instead."""

    guard: Guard
    problem: str
    hint: str


def judge(deletions: Deletions) -> Guard | None:
    """The guard that stops a feed which nobody forced; None: the feed may pass."""
    if not deletions.deleted:
        return None
    if not deletions.named:
        return "empty"
    if deletions.deleted > DELETED_FEW and deletions.deleted * 100 > deletions.held * DELETED_PERCENT_MAX:
        return "share"
    if deletions.deleted > DELETED_FEW_OF_HALF and deletions.named * 2 < deletions.held:
        return "half"
    return "choice" if deletions.dropped else None


def sentence(guard: Guard, deletions: Deletions, rows_of: str) -> str:
    """What the guard says, after the feed's name; `rows_of` names what the feed speaks for, such as `price/all`."""
    held, deleted = f"{deletions.held:,}", f"{deletions.deleted:,}"
    if guard == "empty":
        return f"has no rows; --full would delete all of {rows_of}: {held} row{'s' if deletions.held > 1 else ''}"
    would = f"would delete {deleted} of the {held} rows of {rows_of}"
    if guard == "share":
        return f"{would}, more than {DELETED_PERCENT_MAX} %"
    if guard == "half":
        return f"{would}: it has {deletions.named:,}, fewer than half"
    return f"{would}, among them all with {deletions.dropped}: it has none of those"


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
