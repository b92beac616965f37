"""A price schedule: steps of (starts_at, ends_at or open, amount), and the edits HQ makes to one.

Times are whole seconds since 1970, UTC; amounts are integer minor units. A step covers
`starts_at <= t < ends_at`. On the wire and in SQLite a schedule is compact JSON:
`[[1767225600,null,199]]`, sorted, without overlaps.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from storelink.contract.errors import ContractViolation
from storelink.contract.limits import SEQ_MAX, STEPS_MAX
from storelink.contract.times import rfc3339

TIME_MAX = 253_402_300_799
"""The last second of the year 9999."""

_steps = msgspec.json.Decoder(list[tuple[int, int | None, int]])


@dataclass(frozen=True, slots=True, order=True)
class Step:
    """One price from `starts_at` until `ends_at` (None: open)."""

    starts_at: int
    ends_at: int | None
    amount_minor: int

    def covers(self, now: int) -> bool:
        return self.starts_at <= now and (self.ends_at is None or now < self.ends_at)

    def over(self, now: int) -> bool:
        return self.ends_at is not None and self.ends_at <= now


Schedule = tuple[Step, ...]


def dump(schedule: Schedule) -> str:
    return msgspec.json.encode([(s.starts_at, s.ends_at, s.amount_minor) for s in schedule]).decode()


def load(text: str) -> Schedule:
    """Read a schedule. Raises ContractViolation if it is not one."""
    try:
        schedule = tuple(Step(*step) for step in _steps.decode(text))
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ContractViolation("bad_schedule", str(error), field="schedule") from error
    check(schedule)
    return schedule


def check(schedule: Schedule) -> None:
    """Raise ContractViolation unless sorted, within bounds and free of overlaps."""
    if not 1 <= len(schedule) <= STEPS_MAX:
        raise _bad(f"must have 1 to {STEPS_MAX} steps, not {len(schedule)}")
    until: int | None = 0
    for step in schedule:
        if until is None or step.starts_at < until:
            raise _bad("steps overlap or are out of order")
        if step.ends_at is not None and step.ends_at <= step.starts_at:
            raise _bad("a step ends before it starts")
        if not 0 <= step.amount_minor <= SEQ_MAX or step.starts_at > SEQ_MAX or (step.ends_at or 0) > SEQ_MAX:
            raise _bad("a number is out of range")
        until = step.ends_at


def at(schedule: Schedule, now: int) -> Step | None:
    """The step in force at `now`."""
    return next((s for s in schedule if s.covers(now)), None)


def set_step(schedule: Schedule, now: int, new: Step) -> Schedule:
    """
    Put a step into a schedule and drop the steps that are over.

    An open step ends where the next one begins, and what runs at its start ends there. A step that holds
    the new one inside is cut around it. Anything else that overlaps is refused: the desk must say which of
    the two it means.
    """
    if new.ends_at is not None and new.ends_at <= new.starts_at:
        raise _bad(f"must be after starts_at, {_time(new.starts_at)}", "ends_at")
    if new.over(now):
        raise _bad(f"the step is already over, at {_time(new.ends_at or 0)}", "ends_at")
    kept = [s for s in schedule if not s.over(now)]
    later = [s.starts_at for s in kept if s.starts_at > new.starts_at]
    ends = new.ends_at if new.ends_at is not None else min(later, default=None)
    placed = Step(new.starts_at, ends, new.amount_minor)
    result = [placed]
    for old in kept:
        result += _around(old, placed, replaced=old.starts_at == new.starts_at, opened=new.ends_at is None)
    done = tuple(sorted(result, key=lambda s: s.starts_at))
    check(done)
    return done


def _around(old: Step, new: Step, *, replaced: bool, opened: bool) -> list[Step]:
    """What remains of `old` when `new` takes its place in time; `opened`: it was asked for without an end."""
    before = new.ends_at is not None and new.ends_at <= old.starts_at
    after = old.ends_at is not None and old.ends_at <= new.starts_at
    if before or after:
        return [old]
    tail = []
    if new.ends_at is not None and (old.ends_at is None or old.ends_at > new.ends_at):
        tail = [Step(new.ends_at, old.ends_at, old.amount_minor)]
    if replaced:
        return tail if old.ends_at is None else []
    ends_inside = old.ends_at is not None and new.ends_at is not None and old.ends_at < new.ends_at
    if old.starts_at > new.starts_at or (ends_inside and not opened):
        end = "open" if old.ends_at is None else _time(old.ends_at)
        raise _bad(f"the step overlaps the one from {_time(old.starts_at)} to {end}: one must end first", "starts_at")
    return [Step(old.starts_at, new.starts_at, old.amount_minor), *tail]


def _time(seconds: int) -> str:
    return rfc3339(seconds * 1000) if seconds <= TIME_MAX else str(seconds)


def _bad(detail: str, field: str = "schedule") -> ContractViolation:
    return ContractViolation("bad_schedule", detail, field=field)
