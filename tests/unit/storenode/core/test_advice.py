"""What `storenode status` says in words: a table of what can be wrong, and the screen in a pipe and on a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream
from storelink.host.locks import lock_instance
from storenode.cli import main
from storenode.core.advice import LINE, Finding, advise, size, span
from storenode.replica.writer import Replica

GB = 1_000_000_000
DEAD = Finding("fail", "The daemon does not run: readers see the catalog as it was.", "systemctl start storenode")


def facts(stream: dict[str, Any] | None = None, name: str = "price/all", **changed: Any) -> dict[str, Any]:
    one = {"state": "live", "verified_ok": None, "quarantined": 0, "lag_events": 0, "stale_seconds": 90}
    return {
        "pid": 7,
        "connected": True,
        "seen_seconds": 1,
        "read_models": {},
        "streams": {name: one | (stream or {})},
        "outbox": {"pending": 0, "oldest_age_seconds": None, "refused": 0},
        "clock": {"skew_seconds": None},
        "database": {"path": "r.db", "wal_bytes": 0, "free_bytes": 50 * GB},
    } | changed


def waiting(pending: int | None, age_s: int | None, refused: int | None) -> dict[str, Any]:
    return {"outbox": {"pending": pending, "oldest_age_seconds": age_s, "refused": refused}}


def room(free_bytes: int, wal_bytes: int = 0) -> dict[str, Any]:
    return {"database": {"path": "r.db", "wal_bytes": wal_bytes, "free_bytes": free_bytes}}


def clocked(verdict: str, skew_s: float | None) -> dict[str, Any]:
    at = "2026-01-01T00:00:00Z"
    return {"skew_seconds": skew_s, "verdict": verdict, "correction_seconds": -3_600, "known_at": at}


REFUSAL = {
    "message": "segment",
    "range": "1-4000",
    "reason": "oversized",
    "why": "it is too large",
    "detail": "5100000 bytes",
    "since": "2026-01-01T06:41:02Z",
    "times": 41,
}
REFUSED = "refuses segment 1-4000 since 2026-01-01T06:41:02Z: it is too large (5100000 bytes; 41 times)"
REPAIR = "HQ and store versions may differ: compare storenode --version with hq --version, upgrade the older one"

CASES: list[tuple[dict[str, Any], list[Finding]]] = [
    (facts(), []),
    (facts(pid=None, connected=False), [DEAD]),
    (
        facts(connected=False, seen_seconds=31),
        [
            Finding(
                "fail",
                "The daemon runs (pid 7) but has not moved for 31 seconds: it hangs.",
                "systemctl restart storenode",
            )
        ],
    ),
    (facts(seen_seconds=30), []),
    (
        facts({"state": "offline"}, connected=False),
        [Finding("warn", "The line to the broker is down; the store sells on with what it has.", LINE)],
    ),
    (
        facts({"state": "offline"}),
        [Finding("warn", "price/all: the broker is there, but HQ has been silent for 1 minute.", "at HQ: hq status")],
    ),
    (
        facts({"state": "catching_up", "lag_events": 8}),
        [Finding("warn", "price/all: is 8 events behind and fetches them.")],
    ),
    (
        facts({"state": "bootstrapping"}),
        [Finding("fail", "price/all: has never been complete; there is nothing to sell by yet.")],
    ),
    (facts({"state": "bootstrapping"}, "price/zone-west"), []),
    (
        facts({"state": "bootstrapping", "epoch": None, "refusal": REFUSAL}),
        [Finding("fail", f"price/all: {REFUSED}. There is nothing to sell by yet.", REPAIR)],
    ),
    (
        facts({"state": "catching_up", "epoch": "e", "lag_events": 47_496, "refusal": REFUSAL}),
        [Finding("fail", f"price/all: {REFUSED}. What is here serves on, and does not get newer.", REPAIR)],
    ),
    (
        facts({"state": "rebuilding"}),
        [Finding("warn", "price/all: is fetched anew; the rows from before serve meanwhile.")],
    ),
    (
        facts({"state": "diverged"}),
        [Finding("fail", "price/all: its history is not HQ's; what is shown may be wrong.", "storenode verify")],
    ),
    (
        facts({"verified_ok": False}),
        [Finding("fail", "price/all: rows were found that are not HQ's; they are fetched anew by themselves.")],
    ),
    (
        facts({"quarantined": 2}),
        [Finding("warn", "price/all: 2 entities are held for breaking a rule.", "storenode quarantine")],
    ),
    (
        facts(read_models={"product_search of product/all": "stale", "product_search of product/west": "behind"}),
        [Finding("warn", "product_search of product/all: is to be rebuilt; until then it answers from what was.")],
    ),
    (
        facts(**waiting(None, None, None)),
        [Finding("fail", "The outbox cannot be read: what the store tells HQ may be stuck.", "storenode outbox")],
    ),
    (facts(**waiting(9, None, 1)), [Finding("warn", "1 entry for HQ set aside.", "storenode outbox")]),
    (facts(**waiting(9, 3_600, 0)), []),
    (
        facts(**waiting(1, 7_300, 0)),
        [Finding("warn", "1 entry waits for HQ, the oldest for 2 hours; none is lost.", LINE)],
    ),
    (
        facts(**room(GB - 1)),
        [Finding("warn", "Only 1000.0 MB are free on the replica's disk.", "df -h, then free some space")],
    ),
    (
        facts(pid=None, connected=False, **room(99_000_000)),
        [
            DEAD,
            Finding(
                "fail", "Only 99.0 MB are free on the replica's disk: updates will stop.", "df -h, then free some space"
            ),
        ],
    ),
    (
        facts(**room(50 * GB, 268_435_457)),
        [Finding("warn", "The log has grown to 268.4 MB: a reader keeps an old snapshot open.", "fuser -v r.db")],
    ),
    (
        facts({"state": "rebuilding"}, clock={"skew_seconds": -61}),
        [
            Finding("fail", "The clock is 1 minute behind HQ's: prices change at the wrong time.", "timedatectl"),
            Finding("warn", "price/all: is fetched anew; the rows from before serve meanwhile."),
        ],
    ),
    (facts(clock=clocked("ok", 59.9)), []),
    (facts(clock=clocked("unconfirmed", None)), []),
    (
        facts(clock=clocked("corrected", 7_300.0)),
        [Finding("fail", "The clock is 2 hours ahead of HQ's: prices go by HQ's time until it is set.", "timedatectl")],
    ),
    (
        facts(clock=clocked("corrected", None)),
        [Finding("fail", "The clock was 1 hour off when HQ was last heard; prices still allow for it.", "timedatectl")],
    ),
    (
        facts(clock=clocked("behind", 0.0)),
        [
            Finding(
                "fail",
                "The clock is behind HQ's newest time: prices go by 2026-01-01T00:00:00Z and not before.",
                "timedatectl",
            )
        ],
    ),
    (
        facts(clock=clocked("held", None)),
        [
            Finding(
                "fail",
                "The clock is too far past all that HQ vouched for: prices go on from 2026-01-01T00:00:00Z.",
                "timedatectl; if it is right after all, reach HQ, or raise clock_hold_days",
            )
        ],
    ),
    (
        facts(clock=clocked("suspect", None)),
        [
            Finding(
                "warn",
                "The clock is over a day past what HQ last vouched for, and HQ has not been heard since.",
                "timedatectl; is the date right?",
            )
        ],
    ),
]


@pytest.mark.parametrize(("found", "expected"), CASES)
def test_what_is_wrong_is_said_in_words_the_worst_first(found: dict[str, Any], expected: list[Finding]) -> None:
    assert advise(found) == expected


def test_durations_and_sizes_are_for_a_person() -> None:
    assert [span(s) for s in (None, 0, 1, 59, 60, 7_199, 86_400, 200_000)] == [
        "ever",
        "0 seconds",
        "1 second",
        "59 seconds",
        "1 minute",
        "1 hour",
        "1 day",
        "2 days",
    ]
    assert [size(b) for b in (0, 999, 1_000, 2_500_000, 3 * GB, 4_000 * GB)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "2.5 MB",
        "3.0 GB",
        "4.0 TB",
    ]


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Replica]:
    replica = Replica.open(tmp_path / "replica.db", ("all",), BUILT_IN)
    now_ms = time.time_ns() // 1_000_000
    for context in ("price", "product"):
        replica.apply(
            Stream(BUILT_IN[context], "all"),
            epoch="000000000001-00000000",
            position=1,
            digest="0" * 32,
            head_seq=1,
            batches=[],
            replace=False,
            wall_ms=now_ms,
        )
    replica.feed_search()
    replica.heartbeat(
        store_id="store-7", pid=os.getpid(), connected=True, started_at_ms=now_ms, counters={}, wall_ms=now_ms
    )
    lock = lock_instance(Path(f"{replica.path}.lock"))
    assert lock is not None
    with lock:
        yield replica
    replica.connection.close()


def typed(path: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["--db", str(path), "status", *words], env={"STORENODE_CONFIG": ""})
    return result.exit_code, result.stdout


def masked(screen: str) -> list[str]:
    """The screen's lines without what differs from run to run."""
    screen = re.sub(r"\d{4}-\d\d-\d\dT[\d:]{8}Z", "TIME", re.sub(r"pid \d+, up \d+ seconds?", "pid, up", screen))
    return [re.sub(r" +", " ", re.sub(r"[\d.]+ (kB|MB|GB|TB|bytes)", "SIZE", s)).rstrip() for s in screen.splitlines()]


def test_the_screen_in_a_pipe_is_plain_and_one_fact_a_line(live: Replica) -> None:
    code, screen = typed(live.path)
    assert "\x1b" not in screen
    lines = [s for s in masked(screen) if not s.startswith("search ")]
    assert (code, lines) == (
        0,
        [
            "store-7 live connected, pid, up",
            "stream state position behind rows as of digest",
            "price/all live 1 0 0 TIME 000000000000",
            "product/all live 1 0 0 TIME 000000000000",
            "outbox 0 wait for HQ; 0 set aside",
            "clock not compared with HQ's",
            "disk SIZE and SIZE of log; SIZE free",
            "All is well.",
        ],
    )


def test_the_screen_says_what_to_type(live: Replica) -> None:
    live.set_verified(Stream.parse("price/all", BUILT_IN), ok=False, at_ms=1)
    code, screen = typed(live.path)
    assert (code, masked(screen)[-2:]) == (
        2,
        [
            "disk SIZE and SIZE of log; SIZE free",
            "fail price/all: rows were found that are not HQ's; they are fetched anew by themselves.",
        ],
    )


def test_the_screen_shows_the_states_of_read_models(live: Replica) -> None:
    db = live.connection
    db.execute("DELETE FROM read_models")
    row = "'product_search', 'product/all', 1, 'behind'"
    db.execute(f"INSERT INTO read_models(name, stream, position, state) VALUES ({row})")
    assert "search product_search of product/all: behind" in masked(typed(live.path)[1])


def test_json_and_watch_do_not_go_together(live: Replica) -> None:
    assert typed(live.path, "--json", "--watch") == (3, "")


def watched(path: Path, env: dict[str, str], change: Any) -> tuple[int, str, str]:
    """Watch on a terminal, wait for the picture, change something, wait for the new one, press Ctrl-C."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "storenode.cli", "--db", str(path), "status", "--watch"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "STORENODE_CONFIG": ""} | env,
    )
    os.close(theirs)

    def until(text: str) -> str:
        seen, deadline_s = "", time.monotonic() + 20
        while text not in seen:
            assert time.monotonic() < deadline_s, seen
            if select.select([ours], [], [], 0.2)[0]:
                seen += os.read(ours, 65_536).decode(errors="replace")
        return seen

    try:
        before = until(change[0])
        change[1]()
        after = until(change[2])
        process.send_signal(signal.SIGINT)
        deadline_s = time.monotonic() + 20
        with suppress(OSError):  # a terminal that nobody holds any more
            while process.poll() is None and select.select([ours], [], [], 5)[0] and os.read(ours, 65_536):
                assert time.monotonic() < deadline_s, "it goes on after Ctrl-C"
        return process.wait(10), before, after
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_watch_follows_in_colour_until_ctrl_c_and_leaves_well(live: Replica) -> None:
    def differ() -> None:
        live.set_verified(Stream.parse("price/all", BUILT_IN), ok=False, at_ms=1)

    code, before, _ = watched(live.path, {}, ("All is well.", differ, "not HQ's"))
    assert (code, "\x1b[32m" in before) == (0, True)


def test_watch_waits_for_a_replica_that_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "replica.db"
    made: list[Replica] = []
    code, _, _ = watched(
        path,
        {"COLUMNS": "200"},
        ("there is no replica", lambda: made.append(Replica.open(path, ("all",), BUILT_IN)), "has never been complete"),
    )
    made[0].connection.close()
    assert code == 0
