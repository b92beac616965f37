"""Digest and schedule against independent models."""

from __future__ import annotations

import hashlib
import json
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from storelink.contract import schedule
from storelink.contract.contexts import PRODUCT, Row
from storelink.contract.errors import ContractViolation
from storelink.contract.rows import EMPTY, canonical, from_hex, row_hash, to_hex, total
from storelink.contract.schedule import Schedule, Step
from tests.property.contract_rows import contents, keys

ROWS = st.tuples(st.integers(1, 2**63 - 1), keys(PRODUCT), contents(PRODUCT)).map(lambda r: (r[0], *r[1], *r[2]))
TIMES = st.integers(0, 60)


def digest_by_the_book(rows: list[Row]) -> str:
    """The digest as storelink/contract/README.md describes it, with nothing but the standard library."""
    found = 0
    for row in rows:
        text = json.dumps(list(row), ensure_ascii=False, separators=(",", ":"))
        found += int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")
    return format(found % 2**128, "032x")


@settings(max_examples=300, deadline=None)
@given(st.lists(ROWS, max_size=6), st.randoms(use_true_random=False))
def test_the_digest_is_the_one_the_text_describes(rows: list[Row], rng: random.Random) -> None:
    """Rows hold no DEL or other characters that two JSON writers would spell differently, or both agree on them."""
    shuffled = list(rows)
    rng.shuffle(shuffled)
    assert to_hex(total(shuffled)) == digest_by_the_book(rows)


@settings(max_examples=200, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=6))
def test_a_row_that_leaves_takes_its_hash_along(rows: list[Row]) -> None:
    *kept, gone = rows
    assert to_hex(total(rows) - row_hash(gone)) == to_hex(total(kept))
    assert from_hex(EMPTY) == total([])
    assert json.loads(canonical(gone)) == list(gone)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    times = sorted(draw(st.sets(TIMES, min_size=1, max_size=8)))
    ends: list[int | None] = [*times[1:], None]
    steps = [Step(a, b, draw(st.integers(0, 9))) for a, b in zip(times, ends, strict=True)]
    kept = [s for s in steps if draw(st.booleans())]
    return tuple(kept) or (steps[-1],)


def prices(steps: Schedule, since: int) -> dict[int, int | None]:
    """The price at every moment, found by looking at all steps."""
    found: dict[int, int | None] = {}
    for now in range(since, 80):
        covering = [s.amount_minor for s in steps if s.starts_at <= now and (s.ends_at is None or now < s.ends_at)]
        assert len(covering) <= 1
        found[now] = covering[0] if covering else None
    return found


@settings(max_examples=500, deadline=None)
@given(schedules(), TIMES, st.integers(0, 9))
def test_a_price_from_now_on_ends_where_the_next_one_begins(steps: Schedule, now: int, amount: int) -> None:
    """The step that runs ends, also where it would have ended before the next one begins: found by this test."""
    before, after = prices(steps, now), prices(schedule.set_step(steps, now, Step(now, None, amount)), now)
    coming = min((s.starts_at for s in steps if s.starts_at > now), default=80)
    assert after == before | dict.fromkeys(range(now, coming), amount)


@settings(max_examples=800, deadline=None)
@given(schedules(), TIMES, TIMES, st.none() | TIMES, st.integers(0, 9))
def test_a_step_changes_the_price_in_its_own_time_only(
    steps: Schedule, now: int, starts: int, ends: int | None, amount: int
) -> None:
    """Replacing a step of the same start may also change what that step held; every other moment stays."""
    try:
        placed = schedule.set_step(steps, now, Step(starts, ends, amount))
    except ContractViolation as violation:
        assert violation.field in {"starts_at", "ends_at", "schedule"}
        return
    before, after = prices(steps, now), prices(placed, now)
    coming = min((s.starts_at for s in steps if s.starts_at > starts and not s.over(now)), default=80)
    until = coming if ends is None else ends
    replaced = next((s for s in steps if s.starts_at == starts and not s.over(now)), None)
    free_until = until if replaced is None else max(until, replaced.ends_at or until)
    for moment in range(now, 80):
        if starts <= moment < until:
            assert after[moment] == amount
        elif not until <= moment < free_until:
            assert after[moment] == before[moment]
