"""What `storenode status` says in words: a table of what can be wrong."""

from __future__ import annotations

from typing import Any

import pytest

from storenode.core.advice import LINE, Finding, advise, size, span

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
    (facts(**waiting(9, None, 1)), [Finding("warn", "1 entry refused by HQ.", "storenode outbox")]),
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
