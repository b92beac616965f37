"""Which time prices go by: the estimator, the rules as a table, and the views under a clock that is off."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from storelink.contract.contexts import BUILT_IN
from storelink.contract.rows import EMPTY
from storelink.contract.streams import Stream
from storelink.contract.times import rfc3339
from storenode.cli import main
from storenode.core.clock_rules import DAY_MS, NEVER_MS, Clock, Mark
from storenode.replica import price_clock, schema
from storenode.replica.writer import Replica

HQ_MS = 1_790_000_000_000
"""What HQ's clock shows when the steady clock shows 0."""

HOUR_MS, YEAR_MS = 3_600_000, 365 * DAY_MS
HOLD_MS = 30 * DAY_MS
PAST = Mark(HQ_MS, HQ_MS, 0, 0, "ok", HOLD_MS, "boot-0", 77)


def clock(past: Mark | None = PAST, *, steady_ms: int = 0, hold_ms: int = HOLD_MS) -> Clock:
    return Clock("boot-1", steady_ms, past, hold_ms)


def connected(past: Mark | None = PAST, *, delays_ms: tuple[int, ...] = (900, 40, 300, 2_000, 70, 500)) -> Clock:
    """A clock that has heard a heartbeat every 5 s, each delayed; the last at 25 s."""
    found = clock(past)
    for number, delay_ms in enumerate(delays_ms):
        found.heard(HQ_MS + 5_000 * number - delay_ms, 5_000 * number, live=True)
    return found


def judged(found: Clock, wall_ms: int, *, steady_ms: int = 30_000) -> tuple[str, int | None, int]:
    """The verdict, the skew, and how far from HQ's time the time is that prices go by."""
    mark = found.read(steady_ms, wall_ms)
    assert mark is not None
    prices_ms = max(mark.known_ms, wall_ms + mark.correction_ms)
    return mark.verdict, mark.skew_ms, prices_ms - HQ_MS - steady_ms


def test_the_skew_is_that_of_the_least_delayed_message() -> None:
    assert judged(connected(), HQ_MS + 30_000 + 7_000) == ("ok", 7_040, 7_000)
    assert judged(connected(delays_ms=(5_000,) * 5 + (1,)), HQ_MS + 30_000)[1] == 1


def test_one_message_is_no_estimate_because_a_slow_line_delays_it() -> None:
    """A catch-up over a thin line holds live messages up for minutes: that is no clock ahead by minutes."""
    found = clock()
    found.heard(HQ_MS - 300_000, 0, live=True)
    assert judged(found, HQ_MS + 30_000) == ("unconfirmed", None, 0)
    slow = clock()
    for number in range(30):
        slow.heard(HQ_MS + 5_000 * number - 300_000, 5_000 * number, live=False)
    assert judged(slow, HQ_MS + 150_000, steady_ms=150_000) == ("unconfirmed", None, 0)


def test_a_message_from_the_future_proves_at_once_that_the_clock_is_behind() -> None:
    found = clock(None)
    found.heard(HQ_MS, 0, live=False)
    assert judged(found, HQ_MS - HOUR_MS, steady_ms=0) == ("behind", -HOUR_MS, 0)
    assert judged(found, HQ_MS - HOUR_MS + 9_000, steady_ms=9_000) == ("behind", -HOUR_MS, 0)


def test_nothing_is_judged_before_anything_was_heard() -> None:
    assert clock(None).read(0, HQ_MS) is None


@pytest.mark.parametrize("off_ms", [60_000 - 40, -60_000 - 40])
def test_up_to_a_minute_of_skew_the_wall_clock_counts(off_ms: int) -> None:
    verdict, skew_ms, _ = judged(connected(), HQ_MS + 30_000 + off_ms)
    assert (verdict, skew_ms) == ("ok", off_ms + 40)


@pytest.mark.parametrize("off_ms", [61_000, -61_000, HOUR_MS, -HOUR_MS, YEAR_MS, -HQ_MS])
def test_connected_and_skewed_prices_go_by_hqs_time(off_ms: int) -> None:
    """One second, one year, 1970: the error left is the delay of the fastest message."""
    assert judged(connected(), HQ_MS + 30_000 + off_ms) == ("corrected", off_ms + 40, -40)


def test_offline_a_clock_that_is_set_keeps_hqs_time_by_the_steady_clock() -> None:
    """Rule for a jump: the daemon knows how much time has really passed, whatever the wall clock says."""
    found, later_ms = connected(), 25_000 + HOUR_MS
    assert judged(found, HQ_MS + later_ms, steady_ms=later_ms) == ("ok", 40, 0)
    verdict, skew_ms, error_ms = judged(found, HQ_MS + later_ms + DAY_MS, steady_ms=later_ms)
    assert (verdict, skew_ms, error_ms) == ("corrected", DAY_MS + 40, -40)
    assert judged(found, HQ_MS + later_ms, steady_ms=later_ms)[0] == "ok"


def test_a_steady_clock_that_drifts_corrects_nothing() -> None:
    ten_days_ms = 10 * DAY_MS
    assert judged(connected(), HQ_MS + ten_days_ms + 120_000, steady_ms=ten_days_ms)[0] == "ok"
    assert judged(connected(), HQ_MS + ten_days_ms + 300_000, steady_ms=ten_days_ms)[0] == "corrected"


def test_hq_that_sets_its_own_clock_back_is_followed_within_the_window() -> None:
    found = connected()
    for number in range(6, 40):
        found.heard(HQ_MS + 5_000 * number - HOUR_MS, 5_000 * number, live=True)
    verdict, _, error_ms = judged(found, HQ_MS + 200_000 - HOUR_MS, steady_ms=200_000)
    assert (verdict, error_ms) == ("ok", -HOUR_MS)


def test_a_message_that_came_quickly_counts_for_two_minutes() -> None:
    """Longer, and a steady clock that runs fast, or HQ's that was set back by seconds, would never be noticed."""
    found = connected()
    for number in range(6, 100):
        found.heard(HQ_MS + 5_000 * number - 30_000, 5_000 * number, live=True)
        verdict, skew_ms, _ = judged(found, HQ_MS + 5_000 * number, steady_ms=5_000 * number)
        # 40 ms came at 5 s, 70 ms at 20 s, 500 ms at 25 s.
        expected = 40 if number <= 25 else 70 if number <= 28 else 500 if number == 29 else 30_000
        assert (verdict, skew_ms) == ("ok", expected)


def test_hq_that_sets_its_own_clock_forward_is_followed_within_the_window() -> None:
    found = connected()
    for number in range(6, 40):
        found.heard(HQ_MS + 5_000 * number + HOUR_MS, 5_000 * number, live=True)
    assert judged(found, HQ_MS + 200_000 + HOUR_MS, steady_ms=200_000) == ("ok", 0, HOUR_MS)


def test_one_message_from_the_future_does_not_move_the_time_of_a_store_that_knows_it() -> None:
    found = connected()
    found.heard(HQ_MS + 26_000 + YEAR_MS, 26_000, live=False)
    assert judged(found, HQ_MS + 30_000)[0] == "ok"
    found.heard(HQ_MS + 26_000 + YEAR_MS, 26_000, live=True)
    found.heard(HQ_MS + 30_000, 30_000, live=True)
    assert judged(found, HQ_MS + 30_000) == ("ok", 0, 0)
    started = clock()
    started.heard(HQ_MS + 10 * YEAR_MS, 0, live=False)
    assert judged(started, HQ_MS + 30_000) == ("unconfirmed", None, 0)


def test_a_daemon_that_restarts_knows_hqs_time_without_hearing_it_again() -> None:
    mark = connected().read(30_000, HQ_MS + 30_000)
    assert mark is not None
    again = Clock("boot-1", 40_000, mark, HOLD_MS)
    assert judged(again, HQ_MS + 40_000 + YEAR_MS, steady_ms=40_000)[:2] == ("corrected", YEAR_MS + 40)
    assert judged(Clock("", 40_000, replace(mark, boot=""), HOLD_MS), HQ_MS + 40_000, steady_ms=40_000)[1] is None


BOOTS = [
    # off since the mark, in front of the true time; verdict; what prices go by, after the mark
    ("an hour off, the clock is right", HOUR_MS, "unconfirmed", HOUR_MS),
    ("a night and more", 2 * DAY_MS, "suspect", 2 * DAY_MS),
    ("almost a month", 29 * DAY_MS, "suspect", 29 * DAY_MS),
    ("the wrong year", 10 * YEAR_MS, "held", 0),
    ("1970", -HQ_MS, "behind", 0),
    ("an hour back", -HOUR_MS, "behind", 0),
    ("a few seconds back", -5_000, "unconfirmed", 0),
]


@pytest.mark.parametrize(("wall_ms", "verdict", "prices_ms"), [row[1:] for row in BOOTS], ids=[row[0] for row in BOOTS])
def test_after_a_start_without_hq_only_a_plausible_clock_is_believed(
    wall_ms: int, verdict: str, prices_ms: int
) -> None:
    assert judged(clock(), HQ_MS + wall_ms, steady_ms=0)[::2] == (verdict, prices_ms)


@pytest.mark.parametrize("wall_ms", [10 * YEAR_MS, -HQ_MS])
def test_time_goes_on_from_the_last_credible_one_and_a_clock_put_right_is_believed_again(wall_ms: int) -> None:
    found = clock()
    assert judged(found, HQ_MS + wall_ms + HOUR_MS, steady_ms=HOUR_MS)[2] == 0
    assert judged(found, HQ_MS + 2 * HOUR_MS, steady_ms=2 * HOUR_MS)[0] == "unconfirmed"


def test_a_store_that_is_started_anew_every_morning_is_not_held_after_a_month_without_hq() -> None:
    mark, hold_ms = PAST, HOLD_MS
    for morning in range(1, 60):
        wall_ms = HQ_MS + morning * DAY_MS
        judgement = Clock(f"boot-{morning}", 0, mark, hold_ms).read(0, wall_ms)
        assert judgement is not None
        mark = judgement
    assert (mark.verdict, mark.known_ms) == ("unconfirmed", HQ_MS + 59 * DAY_MS)


def test_suspicion_lasts_until_hq_is_heard() -> None:
    mark = clock().read(0, HQ_MS + 5 * DAY_MS)
    assert mark is not None
    again = Clock("boot-2", 0, mark, HOLD_MS)
    assert again.read(1, HQ_MS + 5 * DAY_MS + 1) is not None
    assert judged(again, HQ_MS + 5 * DAY_MS, steady_ms=0)[0] == "suspect"
    assert judged(connected(mark), HQ_MS + 30_000) == ("ok", 40, 0)


def test_a_correction_outlives_a_restart_for_the_same_clock_but_not_for_one_put_right() -> None:
    wrong = replace(PAST, wall_ms=HQ_MS + HOUR_MS, correction_ms=-HOUR_MS, verdict="corrected")
    assert judged(clock(wrong), HQ_MS + HOUR_MS + 30_000) == ("corrected", None, 0)
    assert judged(clock(wrong), HQ_MS + 30_000) == ("unconfirmed", None, 0)
    from_1970 = replace(PAST, wall_ms=0, correction_ms=HQ_MS, verdict="corrected")
    assert judged(clock(from_1970), 30_000) == ("corrected", None, 0)
    assert judged(clock(from_1970), HQ_MS + 30_000) == ("unconfirmed", None, 0)


def test_a_hold_of_zero_days_believes_any_later_clock() -> None:
    assert judged(clock(hold_ms=NEVER_MS), HQ_MS + 10 * YEAR_MS, steady_ms=0)[::2] == ("suspect", 10 * YEAR_MS)


# The views: the same rules in SQL, for a clock that a test gives.

ALL = Stream.parse("price/all", BUILT_IN)


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    found = Replica.open(tmp_path / "r.db", ("all",), BUILT_IN)
    yield found
    found.connection.close()


def write(replica: Replica, mark: Mark) -> None:
    names = Mark.__slots__
    replica.connection.execute(
        f"INSERT OR REPLACE INTO clock(id, {', '.join(names)}) VALUES(1{', ?' * len(names)})",
        [getattr(mark, name) for name in names],
    )


def now_s(replica: Replica, local_ms: int) -> int:
    found: int = replica.connection.execute(f"SELECT {price_clock.now_s(str(local_ms // 1000))} FROM clock").fetchone()[
        0
    ]
    return found


MARKS = {
    "ok": PAST,
    "ahead": replace(PAST, wall_ms=HQ_MS + HOUR_MS, correction_ms=-HOUR_MS, verdict="corrected"),
    "behind": replace(PAST, wall_ms=HQ_MS - HOUR_MS, correction_ms=HOUR_MS, verdict="corrected"),
    "1970": replace(PAST, wall_ms=0, correction_ms=HQ_MS, verdict="corrected"),
    "next decade": replace(PAST, wall_ms=HQ_MS + 10 * YEAR_MS, correction_ms=-10 * YEAR_MS, verdict="corrected"),
    "never held": replace(PAST, hold_ms=NEVER_MS),
}


LATER_MS = (-HQ_MS, -YEAR_MS, -HOUR_MS, -30_000, 0, 5_000, HOUR_MS, 29 * DAY_MS, 10 * YEAR_MS)
SHIFTED = [(name, later_ms) for name, mark in MARKS.items() for later_ms in LATER_MS if mark.wall_ms + later_ms >= 0]


@pytest.mark.parametrize(("name", "later_ms"), SHIFTED)
def test_the_views_go_by_the_time_that_a_daemon_starting_now_would_go_by(
    replica: Replica, name: str, later_ms: int
) -> None:
    """A reader without a daemon, and the daemon after a start without HQ, judge alike; both never go back."""
    mark = MARKS[name]
    write(replica, mark)
    local_ms = mark.wall_ms + later_ms
    judgement = Clock("boot-1", 0, mark, mark.hold_ms).read(0, local_ms)
    assert judgement is not None
    expected_ms = max(judgement.known_ms, local_ms + judgement.correction_ms)
    assert now_s(replica, local_ms) == expected_ms // 1000
    assert now_s(replica, local_ms) >= mark.known_ms // 1000


@pytest.mark.parametrize(
    ("name", "later_ms", "verdict"),
    [
        ("ok", HOUR_MS, "ok"),
        ("ok", 10 * YEAR_MS, "held"),
        ("ok", -HOUR_MS, "behind"),
        ("ahead", HOUR_MS, "corrected"),
        ("ahead", -HOUR_MS, "unconfirmed"),
        ("ahead", 10 * YEAR_MS, "held"),
    ],
)
def test_freshness_tells_a_till_how_far_to_trust_the_clock(
    replica: Replica, name: str, later_ms: int, verdict: str
) -> None:
    mark = MARKS[name]
    write(replica, mark)
    sql = f"SELECT {price_clock.verdict(str((mark.wall_ms + later_ms) // 1000))} FROM clock"
    assert replica.connection.execute(sql).fetchone() == (verdict,)
    shown = replica.connection.execute("SELECT clock FROM freshness").fetchone()[0]
    assert shown in ("behind", "held", mark.verdict), "by the machine's own clock"


def test_before_hq_is_heard_the_views_go_by_the_clock(replica: Replica) -> None:
    assert now_s(replica, HQ_MS + 5_000) == HQ_MS // 1000 + 5
    assert replica.connection.execute("SELECT DISTINCT clock FROM freshness").fetchall() == [("unconfirmed",)]


def priced(replica: Replica, local_ms: int) -> list[int]:
    sql = schema.price_at_sql(f"(SELECT {price_clock.now_s(str(local_ms // 1000))} FROM clock)")
    return [row[0] for row in replica.connection.execute(f"SELECT amount_minor FROM ({sql}) WHERE sku = '1'")]


def test_a_till_never_sells_at_tomorrows_price_because_of_its_clock(replica: Replica) -> None:
    """Today 1.00, from tomorrow on 2.00; the daemon is dead, the machine comes up at all sorts of times."""
    today_s = HQ_MS // 1000
    steps = f"[[{today_s - 9},{today_s + 86_400},100],[{today_s + 86_400},null,200]]"
    replica.apply(
        ALL,
        epoch="e",
        position=1,
        digest=EMPTY,
        head_seq=1,
        batches=[([(1, "1", "regular", "EUR", steps)], [])],
        replace=False,
        wall_ms=0,
    )
    assert priced(replica, HQ_MS + 10 * YEAR_MS) == [200], "without the guard"
    write(replica, PAST)
    walls_ms = (HQ_MS + 10 * YEAR_MS, 0, HQ_MS - YEAR_MS, HQ_MS + HOUR_MS)
    assert [priced(replica, wall_ms) for wall_ms in walls_ms] == [[100]] * 4
    assert priced(replica, HQ_MS + DAY_MS) == [200], "and the day after it is the price of the day"


@pytest.mark.parametrize("ahead_ms", [2 * HOUR_MS, -2 * HOUR_MS])
def test_commands_go_by_the_time_that_prices_go_by(replica: Replica, ahead_ms: int) -> None:
    """A machine two hours off: an override holds from now on by HQ's time, and explain agrees with price."""
    wall_ms = time.time_ns() // 1_000_000
    hq_s = (wall_ms - ahead_ms) // 1000
    steps = f"[[{hq_s - HOUR_MS // 1000},{hq_s + HOUR_MS // 1000},100],[{hq_s + HOUR_MS // 1000},null,200]]"
    replica.apply(
        ALL,
        epoch="e",
        position=1,
        digest=EMPTY,
        head_seq=1,
        batches=[([(1, "1", "regular", "EUR", steps)], [])],
        replace=False,
        wall_ms=0,
    )
    write(replica, Mark(wall_ms - ahead_ms, wall_ms, -ahead_ms, ahead_ms, "corrected", HOLD_MS, "b", 0))

    def typed(*words: str) -> dict[str, Any]:
        environ = {"STORENODE_DB": str(replica.path), "STORENODE_STORE_ID": "s", "STORENODE_CONFIG": ""}
        done = CliRunner().invoke(main, [*words, "--json"], env=environ)
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    assert typed("price", "1")["amount_minor"] == typed("explain", "1")["price"]["amount_minor"] == 100
    until = rfc3339((hq_s + 600) * 1000)
    typed("override", "1", "0.77", "--until", until, "--reason", "r")
    replica.connection.execute("SELECT 1")
    assert typed("price", "1")["amount_minor"] == typed("explain", "1")["price"]["amount_minor"] == 77


def test_the_guarded_now_is_computed_once_and_by_the_key(replica: Replica) -> None:
    plan = [
        row[3]
        for row in replica.connection.execute("EXPLAIN QUERY PLAN SELECT * FROM catalog WHERE sku = '1'")
        if "clock" in row[3]
    ]
    assert plan
    assert set(plan) == {"SEARCH clock USING INTEGER PRIMARY KEY (rowid=?)"}
