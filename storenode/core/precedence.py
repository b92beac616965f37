"""Why a price is what it is: every line that a SKU has, in order of precedence, and what each loses or wins by.

The rule is the views' (storenode/replica/schema.py), said once more in words; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from storelink.contract.schedule import Schedule, Step
from storelink.contract.times import rfc3339

RULE = (
    "a local override wins; then the most specific scope; then promotion and clearance over regular;"
    " then the latest start; then the lower amount"
)
OVERRIDE = "override"


@dataclass(frozen=True, slots=True)
class Line:
    """One price line of a SKU as the replica has it. `rank`: of its scope, the highest wins."""

    scope: str
    rank: int
    kind: str
    currency: str
    schedule: Schedule
    seq: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """One step of one line, judged at a moment; `why` is a sentence without its full stop."""

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


def reigns_since(lines: Sequence[Line], at_s: int) -> int | None:
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


def _precedence(each: tuple[Line, Step]) -> tuple[int, bool, int, int, str]:
    line, step = each
    return (-line.rank, line.kind == "regular", -step.starts_at, step.amount_minor, line.kind)


def _why(each: tuple[Line, Step], rival: tuple[Line, Step]) -> str:
    """What decides between the two."""
    (line, step), (other, others) = each, rival
    if line.rank != other.rank:
        if OVERRIDE in (line.kind, other.kind):
            return "this store's own price wins over every price of HQ"
        narrow, wide = (line, other) if line.rank > other.rank else (other, line)
        return f"the scope {narrow.scope} wins over {wide.scope}"
    if (line.kind == "regular") != (other.kind == "regular"):
        return f"a {other.kind if line.kind == 'regular' else line.kind} wins over a regular price"
    if step.starts_at != others.starts_at:
        later = line if step.starts_at > others.starts_at else other
        return f"of {line.kind} and {other.kind} the one that began later wins, the {later.kind}"
    if step.amount_minor != others.amount_minor:
        return "both began at once, and the lower amount wins"
    return "both began at once at the same amount"
