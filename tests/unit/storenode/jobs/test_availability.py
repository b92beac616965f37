"""The availability log: what was, survives what stops a daemon; and what it comes to in percent."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from storelink.contract.times import rfc3339
from storenode.cli import main
from storenode.core.availability import DOWN, Interval, clipped, summed
from storenode.jobs.availability import KEPT_MS, ROWS_MAX, SILENT_MS, AvailabilityLog, intervals
from storenode.outbox.file import standing_of
from storenode.outbox.store import Outbox

P = "price/all"
T0 = 1_790_000_000_000
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Outbox(tmp_path / "outbox.db") as outbox:
        outbox.append("x", 1)
    return tmp_path / "outbox.db"


@pytest.fixture
def log(path: Path) -> Iterator[AvailabilityLog]:
    found = AvailabilityLog(path)
    yield found
    found.close()


def written(path: Path) -> list[tuple[str, str, int, int]]:
    with closing(sqlite3.connect(path)) as db:
        return [(i.stream, i.state, i.from_ms - T0, i.until_ms - T0) for i in intervals(db)]


def at(log: AvailabilityLog, state: str, *times_ms: int, stream: str = P) -> None:
    for at_ms in times_ms:
        log.step({stream: state}, at_ms, T0 + at_ms)


def test_an_interval_is_written_on_a_change_of_state_and_once_a_minute(path: Path, log: AvailabilityLog) -> None:
    at(log, "bootstrapping", 0, 500, 2_000)
    at(log, "live", 5_000, 6_000, 64_000)
    assert written(path) == [(P, "bootstrapping", 0, 5_000), (P, "live", 5_000, 5_000)]
    at(log, "live", 65_000, 66_000)
    at(log, "offline", 70_000)
    assert written(path)[1:] == [(P, "live", 5_000, 70_000), (P, "offline", 70_000, 70_000)]


def test_each_stream_has_intervals_of_its_own_and_one_that_is_gone_ends(path: Path, log: AvailabilityLog) -> None:
    both = {P: "live", "price/zone-west": "bootstrapping"}
    log.step(both, 0, T0)
    log.step(both | {"price/zone-west": "live"}, 5_000, T0 + 5_000)
    at(log, "live", 9_000, 80_000)
    assert written(path) == [
        (P, "live", 0, 80_000),
        ("price/zone-west", "bootstrapping", 0, 5_000),
        ("price/zone-west", "live", 5_000, 9_000),
    ]


def test_a_line_that_flaps_costs_one_write_a_second(path: Path, log: AvailabilityLog) -> None:
    for at_ms in range(0, 10_000, 100):
        at(log, "live" if at_ms // 100 % 2 else "offline", at_ms)
    assert len(written(path)) <= 11


def test_after_a_kill_the_time_until_the_next_start_is_daemon_down(path: Path, log: AvailabilityLog) -> None:
    """Nobody closed anything: the last word is a minute old at most, and the replica's heartbeat knows better."""
    at(log, "live", 0, 60_000, 100_000)
    at(AvailabilityLog(path, T0 + 100_500), "catching_up", 160_000)
    assert written(path) == [(P, "live", 0, 100_500), (P, DOWN, 100_500, 160_000), (P, "catching_up", 160_000, 160_000)]


@pytest.mark.parametrize("hint_ms", [None, T0 - DAY_MS, T0 + DAY_MS, T0 + 60_000 + SILENT_MS + 1])
def test_without_a_heartbeat_that_fits_the_logs_own_last_write_counts(path: Path, hint_ms: int | None) -> None:
    """The replica was moved away with its heartbeat, or its clock was another."""
    at(AvailabilityLog(path), "live", 0, 60_000, 100_000)
    at(AvailabilityLog(path, hint_ms), "live", HOUR_MS)
    assert written(path) == [(P, "live", 0, 60_000), (P, DOWN, 60_000, HOUR_MS), (P, "live", HOUR_MS, HOUR_MS)]


def test_a_clean_stop_is_written_to_the_moment(path: Path, log: AvailabilityLog) -> None:
    at(log, "live", 0, 1_000)
    log.end(T0 + 31_000)
    at(AvailabilityLog(path), "live", 33_000)
    assert written(path) == [(P, "live", 0, 31_000), (P, DOWN, 31_000, 33_000), (P, "live", 33_000, 33_000)]


def test_a_daemon_that_hung_was_down(path: Path, log: AvailabilityLog) -> None:
    at(log, "live", 0, 30_000, 30_000 + SILENT_MS + 1)
    assert [row[1:] for row in written(path)] == [
        ("live", 0, 30_000),
        (DOWN, 30_000, 150_001),
        ("live", 150_001, 150_001),
    ]


def test_what_a_wrong_clock_wrote_into_the_future_goes_when_it_is_put_right(path: Path, log: AvailabilityLog) -> None:
    at(log, "live", 0, 60_000)
    at(log, "offline", 400 * DAY_MS, 400 * DAY_MS + 5_000)
    at(log, "live", 90_000, 150_000)
    assert [row[1:] for row in written(path)] == [
        ("live", 0, 60_000),
        (DOWN, 60_000, 90_000),
        ("live", 90_000, 150_000),
    ]


def test_it_is_pruned_by_age_and_by_number(path: Path) -> None:
    first = AvailabilityLog(path)
    at(first, "live", 0)
    at(AvailabilityLog(path), "live", KEPT_MS + HOUR_MS)
    assert [row[1] for row in written(path)] == [DOWN, "live"], "what touches the kept time stays"
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"INSERT INTO availability VALUES({ROWS_MAX + 10}, 'x', 'live', {T0 + KEPT_MS}, {T0 + KEPT_MS})")
        db.commit()
    at(AvailabilityLog(path), "live", KEPT_MS + 2 * HOUR_MS)
    assert [row[0] for row in written(path)][:1] == ["x"]


def test_the_log_takes_nothing_from_the_outbox(path: Path, log: AvailabilityLog) -> None:
    at(log, "live", 0, 60_000)
    with closing(sqlite3.connect(path)) as db:
        assert (standing_of(db).pending, standing_of(db).acked_seq) == (1, 0)


def test_a_file_that_cannot_be_written_stops_nothing_and_is_tried_again(path: Path, log: AvailabilityLog) -> None:
    whole = path.read_bytes()
    for name in (path.name, path.name + "-wal"):
        path.with_name(name).write_bytes(b"no database" * 99)
    at(log, "live", 0, 1_000)
    path.with_name(path.name + "-wal").unlink()
    path.write_bytes(whole)
    at(log, "live", 59_000)
    assert written(path) == []
    at(log, "live", 61_000)
    assert written(path) == [(P, "live", 61_000, 61_000)]


def test_without_an_outbox_it_waits_for_one(tmp_path: Path) -> None:
    at(AvailabilityLog(tmp_path / "none.db"), "live", 0)
    assert list(tmp_path.iterdir()) == []


def every(*parts: tuple[str, int]) -> list[Interval]:
    """Intervals one behind the other, by state and length."""
    found, at_ms = [], 0
    for state, length_ms in parts:
        found.append(Interval(P, state, at_ms, at_ms + length_ms))
        at_ms += length_ms
    return found


def test_the_sums_of_a_stream_are_those_of_its_intervals() -> None:
    found = summed(every(("live", 90_000), ("offline", 5_000), ("catching_up", 1_000), ("live", 3_000), (DOWN, 1_000)))
    assert (found.recorded_ms, found.outages, found.longest) == (100_000, 2, (90_000, 96_000))
    assert found.states_ms == {"live": 93_000, "offline": 5_000, "catching_up": 1_000, DOWN: 1_000}
    assert (found.percent(93_000), found.usable_ms) == (93.0, 100_000)


def test_a_dead_daemon_leaves_a_store_as_usable_as_it_was() -> None:
    found = summed(every((DOWN, 1), ("bootstrapping", 10), (DOWN, 5), ("live", 7), (DOWN, 3), ("diverged", 2)))
    assert found.usable_ms == 10


def test_percent_never_rounds_up_to_a_hundred() -> None:
    assert summed(every(("live", 10**9), ("offline", 1))).percent(10**9) == 99.999
    assert summed([]).percent(0) is None


def test_only_the_time_asked_for_counts_and_touching_intervals_are_one() -> None:
    parts = every(("live", 10), ("live", 10), ("offline", 10), ("live", 10))
    assert [(i.state, i.from_ms, i.until_ms) for i in clipped(parts, 5, 35)] == [
        ("live", 5, 20),
        ("offline", 20, 30),
        ("live", 30, 35),
    ]


def typed(path: Path, *words: str) -> Result:
    environ = {"STORENODE_DB": str(path.with_name("replica.db")), "STORENODE_CONFIG": ""}
    return CliRunner().invoke(main, ["availability", *words], env=environ)


def document(path: Path, *words: str) -> dict[str, Any]:
    done = typed(path, "--json", *words)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_command_tells_the_time_since_the_last_word_of_a_dead_daemon_as_down(path: Path) -> None:
    now_ms = time.time_ns() // 1_000_000
    log = AvailabilityLog(path)
    for minute in range(-180, -60):
        log.step({P: "live" if minute < -120 else "offline"}, 0, now_ms + minute * MINUTE_MS)
    log.end(now_ms - 60 * MINUTE_MS)
    found = document(path, "--intervals")["streams"][P]
    assert [i["state"] for i in found["intervals"]] == ["live", "offline", DOWN]
    assert found["intervals"][1]["from"] == rfc3339(now_ms - 120 * MINUTE_MS) == found["longest_outage_at"]
    assert abs(found["recorded_seconds"] - 10_800) < 120
    assert (found["outages"], found["usable_percent"]) == (1, 100.0)
    assert 30 < found["live_percent"] < 34
    screen = typed(path).stdout.splitlines()
    assert screen[0].split() == ["STREAM", "RECORDED", "LIVE", "USABLE", "OFFLINE", "DOWN", "OUTAGES", "LONGEST"]
    assert screen[1].split()[:3] == [P, "3", "hours"]


def test_only_the_days_asked_for_are_told(path: Path) -> None:
    now_ms = time.time_ns() // 1_000_000
    log = AvailabilityLog(path)
    log.step({P: "live"}, 0, now_ms - 10 * DAY_MS)
    log.end(now_ms - 10 * DAY_MS + 1)
    found = document(path, "--days", "2")["streams"][P]
    assert (found["recorded_seconds"], found["states"]) == (2 * 86_400, {DOWN: 2 * 86_400})
    assert (found["usable_percent"], found["live_percent"]) == (100.0, 0.0), "readers have what was live before"
    assert "intervals" not in found


def test_where_nothing_is_recorded_the_command_says_so(tmp_path: Path, path: Path) -> None:
    done = typed(path)
    assert (done.exit_code, "nothing is recorded yet" in done.stderr) == (1, True)
    done = typed(tmp_path / "elsewhere" / "outbox.db")
    assert (done.exit_code, "there is no outbox" in done.stderr) == (1, True)
