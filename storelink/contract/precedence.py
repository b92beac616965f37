"""Which price wins and why: the order of precedence, and every price line of a SKU judged by it.

PRECEDENCE is the one statement of the order: `storenode.replica.schema` makes the views' ORDER BY from it, `candidates`
sorts and explains by it, also at HQ, and RULE says it in words.

| criterion     | wins                                         |
|---------------|----------------------------------------------|
| SCOPE         | a local override; then the most specific scope |
| KIND          | promotion and clearance over regular         |
| LATEST_START  | what began last                              |
| LOWEST_AMOUNT | the lower amount                             |
| KIND_NAME     | the kind that is first by the alphabet: only so that every reader gives the same answer |
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storelink.contract.schedule import Schedule, Step
from storelink.contract.times import rfc3339

REGULAR = "regular"

OVERRIDE = "override"
"""The kind of a price line that is a store's own; no stream has it."""


class Criterion(enum.Enum):
    """What decides between two prices in force, in the words of RULE; empty where RULE need not say it."""

    SCOPE = "a local override wins; then the most specific scope"
    KIND = "then promotion and clearance over regular"
    LATEST_START = "then the latest start"
    LOWEST_AMOUNT = "then the lower amount"
    KIND_NAME = ""


PRECEDENCE = (
    Criterion.SCOPE,
    Criterion.KIND,
    Criterion.LATEST_START,
    Criterion.LOWEST_AMOUNT,
    Criterion.KIND_NAME,
)
"""The first criterion in which two prices differ decides."""

RULE = "; ".join(criterion.value for criterion in PRECEDENCE if criterion.value)


@dataclass(frozen=True, slots=True)
class Line:
    """One price line of a SKU, at HQ or in a store. `rank`: of its scope, the highest wins."""

    scope: str
    rank: int
    kind: str
    currency: str
    schedule: Schedule
    seq: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """One step of one line, judged at one time; `why` is a sentence without its full stop."""

    line: Line
    step: Step
    in_force: bool
    won: bool
    why: str


def candidates(lines: Iterable[Line], at_s: int) -> list[Candidate]:
    """Every step of every line: those in force first, the winner before all, then those to come, then those over."""
    steps = [(line, step) for line in lines for step in line.schedule]
    running = sorted((each for each in steps if each[1].covers(at_s)), key=_precedence)
    to_come = sorted((each for each in steps if each[1].starts_at > at_s), key=lambda each: each[1].starts_at)
    over = sorted((each for each in steps if each[1].over(at_s)), key=lambda each: -each[1].starts_at)
    found = []
    for index, (line, step) in enumerate(running):
        rivals = running[1:2] if index == 0 else running[:1]
        why = _why((line, step), rivals[0]) if rivals else "it is the only price in force"
        found.append(Candidate(line, step, in_force=True, won=index == 0, why=why))
    found += [
        Candidate(line, step, in_force=False, won=False, why=f"it begins at {rfc3339(step.starts_at * 1000)}")
        for line, step in to_come
    ]
    found += [
        Candidate(line, step, in_force=False, won=False, why=f"it ended at {rfc3339((step.ends_at or 0) * 1000)}")
        for line, step in over
    ]
    return found


def in_force_since(lines: Sequence[Line], at_s: int) -> int | None:
    """The second since which the winner at `at_s` has won by its schedule; None if nothing is in force."""
    winner = _winner(lines, at_s)
    if winner is None:
        return None
    edges = {edge for line in lines for step in line.schedule for edge in (step.starts_at, step.ends_at)}
    for edge in sorted((e for e in edges if e is not None and e <= at_s), reverse=True):
        if _winner(lines, edge - 1) != winner:
            return edge
    return winner[1].starts_at


def _winner(lines: Sequence[Line], at_s: int) -> tuple[Line, Step] | None:
    running = [(line, step) for line in lines for step in line.schedule if step.covers(at_s)]
    return min(running, key=_precedence, default=None)


_SORTED_BY: Mapping[Criterion, Callable[[Line, Step], Any]] = {
    Criterion.SCOPE: lambda line, _: -line.rank,
    Criterion.KIND: lambda line, _: line.kind == REGULAR,
    Criterion.LATEST_START: lambda _, step: -step.starts_at,
    Criterion.LOWEST_AMOUNT: lambda _, step: step.amount_minor,
    Criterion.KIND_NAME: lambda line, _: line.kind,
}
"""The lowest wins."""


def _precedence(each: tuple[Line, Step]) -> tuple[Any, ...]:
    return tuple(_SORTED_BY[criterion](*each) for criterion in PRECEDENCE)


def _why(each: tuple[Line, Step], rival: tuple[Line, Step]) -> str:
    """What decides between the two."""
    decides = next((c for c in PRECEDENCE if _SORTED_BY[c](*each) != _SORTED_BY[c](*rival)), Criterion.KIND_NAME)
    (winner, _), (loser, _) = sorted((each, rival), key=_precedence)
    match decides:
        case Criterion.SCOPE if OVERRIDE in (winner.kind, loser.kind):
            return "this store's own price wins over every price of HQ"
        case Criterion.SCOPE:
            return f"the scope {winner.scope} wins over {loser.scope}"
        case Criterion.KIND:
            return f"a {winner.kind} wins over a regular price"
        case Criterion.LATEST_START:
            return f"of {each[0].kind} and {rival[0].kind} the one that began later wins, the {winner.kind}"
        case Criterion.LOWEST_AMOUNT:
            return "both began at once, and the lower amount wins"
        case Criterion.KIND_NAME:
            return "both began at once at the same amount"
