"""When jobs are due, and when a clock has jumped: tables."""

from __future__ import annotations

import pytest

from storenode.core.job_times import ACTIVATE, BACKUP, CHECKPOINT, PRUNE, VERIFY, ClockWatch, Rhythm, rhythms

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
NIGHTLY = Rhythm(86_400, 2 * 3_600)
"""At 02:00 UTC."""

BASE_MS = 20_000 * DAY_MS


@pytest.mark.parametrize(
    ("after_ms", "next_ms"),
    [
        (0, 2 * HOUR_MS),
        (2 * HOUR_MS - 1, 2 * HOUR_MS),
        (2 * HOUR_MS, DAY_MS + 2 * HOUR_MS),
        (23 * HOUR_MS, DAY_MS + 2 * HOUR_MS),
    ],
)
def test_the_next_instant_lies_behind_the_time_asked_for(after_ms: int, next_ms: int) -> None:
    assert NIGHTLY.next_ms(BASE_MS + after_ms) == BASE_MS + next_ms


@pytest.mark.parametrize(
    ("last_ms", "wall_ms", "owed"),
    [
        (2 * HOUR_MS, 5 * HOUR_MS, False),
        (2 * HOUR_MS, DAY_MS + 2 * HOUR_MS - 1, False),
        (2 * HOUR_MS, DAY_MS + 2 * HOUR_MS, True),
        (2 * HOUR_MS, 9 * DAY_MS, True),
        (HOUR_MS, HOUR_MS + 5, False),
        (9 * DAY_MS, 5 * HOUR_MS, True),
    ],
    ids=["done today", "not yet", "due now", "nine nights missed", "new since one", "done in the future"],
)
def test_what_was_missed_is_owed_however_long_ago(last_ms: int, wall_ms: int, owed: bool) -> None:
    assert NIGHTLY.is_owed(BASE_MS + last_ms, BASE_MS + wall_ms) is owed


def test_every_store_has_its_own_delay_and_keeps_it() -> None:
    def found(store: str) -> dict[str, Rhythm]:
        return dict(rhythms(store, look_s=60, backup_hour=3))

    assert found("store-1") == found("store-1")
    offsets = {found(f"store-{n}")[BACKUP].offset_s for n in range(100)}
    assert len(offsets) > 90
    assert all(3 * 3_600 <= offset < 3 * 3_600 + 1_800 for offset in offsets)


def test_what_a_store_does_not_want_is_not_due() -> None:
    assert set(rhythms("s", look_s=None, backup_hour=None)) == {CHECKPOINT, VERIFY, PRUNE}
    assert set(rhythms("s", look_s=60, backup_hour=0)) == {CHECKPOINT, VERIFY, PRUNE, ACTIVATE, BACKUP}


def test_a_clock_that_drifts_never_jumps_and_one_that_is_set_jumps_once() -> None:
    watch = ClockWatch(BASE_MS, 0)
    wall_ms = BASE_MS
    for look in range(1, 100):
        wall_ms += 5_400  # 400 ms too fast in every 5 s
        assert watch.jump_ms(wall_ms, look * 5_000) == 0
    assert watch.jump_ms(wall_ms - HOUR_MS, 99 * 5_000) == -HOUR_MS
    assert watch.jump_ms(wall_ms - HOUR_MS + 5_000, 100 * 5_000) == 0
    assert watch.jump_ms(wall_ms + 365 * DAY_MS, 100 * 5_000) == 365 * DAY_MS + HOUR_MS - 5_000
