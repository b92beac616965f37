"""What is wrong and what to do next, in words: from the status document to findings.

A finding is a verdict (`ok`, `warn`: it heals or it can wait, `fail`: somebody must act), one sentence, and what to
type. Nothing here is guessed: a finding says what the status shows and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storelink.contract.status import refusal_hint, refusal_sentence
from storenode.core.states import NEEDED

OK, WARN, FAIL = "ok", "warn", "fail"
_WORST_FIRST = (FAIL, WARN, OK)

HEARD_WITHIN_S = 30
WAITS_LONG_S = 3_600
SKEW_S_MAX = 60
FREE_BYTES_MIN = 100_000_000
FREE_BYTES_LOW = 1_000_000_000
WAL_BYTES_MAX = 256 * 1024 * 1024
LINE = "journalctl -u storenode -n 20 says why; check broker and line"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `todo`: what to type or do; empty when there is nothing to do."""

    verdict: str
    sentence: str
    todo: str = ""


def advise(status: Mapping[str, Any]) -> list[Finding]:
    """
    All that is not well, the worst first; empty when all is.

    Args:
        status: the status document, and `seen_seconds`: since the daemon last wrote its heartbeat (None: never),
            and `read_models`: the state of each, by name and stream.
    """
    database, contexts = status["database"], status.get("contexts", {})
    found = [
        *_daemon(status),
        *_contexts(contexts),
        *(
            f
            for name, s in status["streams"].items()
            if name.partition("/")[0] not in contexts and (f := stream(name, s, connected=status["connected"]))
        ),
        *read_models(status["read_models"]),
        outbox(status["outbox"]),
        disk(database["free_bytes"]),
        *log(database),
        clock(status["clock"]),
    ]
    return sorted((f for f in found if f.verdict != OK), key=lambda f: _WORST_FIRST.index(f.verdict))


def worst(findings: Sequence[Finding]) -> str:
    """The worst verdict among findings."""
    return next((v for v in _WORST_FIRST if any(f.verdict == v for f in findings)), OK)


def daemon(pid: int | None, *, running: bool, seen_s: int | None) -> Finding:
    """Judge the daemon by its lock (`running`) and by its heartbeat."""
    if not running:
        return Finding(FAIL, "The daemon does not run: readers see the catalog as it was.", "systemctl start storenode")
    who = f"The daemon runs (pid {pid})" if pid else "The daemon runs"
    if seen_s is None or seen_s > HEARD_WITHIN_S:
        since = "has never written its heartbeat" if seen_s is None else f"has not moved for {span(seen_s)}"
        return Finding(FAIL, f"{who} but {since}: it hangs.", "systemctl restart storenode")
    return Finding(OK, f"{who} and is at work.")


def stream(name: str, s: Mapping[str, Any], *, connected: bool) -> Finding | None:
    """Judge one stream; None where there is nothing to say, or where the finding about the line says it already."""
    if (refused := s.get("refusal")) is not None:
        has_rows = s["epoch"] is not None
        so = "What is here serves on, and does not get newer" if has_rows else "There is nothing to sell by yet"
        return Finding(FAIL, f"{refusal_sentence(name, refused)}. {so}.", refusal_hint(refused))
    if s["verified_ok"] is False and s["state"] != "rebuilding":
        todo = "" if connected else LINE
        return Finding(FAIL, f"{name}: rows were found that are not HQ's; they are fetched anew by themselves.", todo)
    if s["quarantined"]:
        said = count(s["quarantined"], "entity is held", "entities are held")
        return Finding(WARN, f"{name}: {said} for breaking a rule.", "storenode quarantine")
    match s["state"]:
        case "diverged":
            return Finding(FAIL, f"{name}: its history is not HQ's; what is shown may be wrong.", "storenode verify")
        case "rebuilding":
            return Finding(WARN, f"{name}: is fetched anew; the rows from before serve meanwhile.")
        case "bootstrapping" if name.endswith("/all") and name not in NEEDED:
            return Finding(WARN, f"{name}: HQ has not announced it yet.", "" if connected else LINE)
        case "bootstrapping" if name in NEEDED:
            todo = "" if connected else LINE
            return Finding(FAIL, f"{name}: has never been complete; there is nothing to sell by yet.", todo)
        case "catching_up":
            behind = "an unknown number of" if not s["lag_events"] else s["lag_events"]
            return Finding(WARN, f"{name}: is {behind} events behind and fetches them.")
        case "offline" if connected:
            return Finding(
                WARN,
                f"{name}: the broker is there, but HQ has been silent for {span(s['stale_seconds'])}.",
                "at HQ: hq status",
            )
    return None


def _contexts(found: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    for name, context in found.items():
        yield Finding(
            WARN,
            f"{name}: {context['problem']}.",
            "make the file of contexts HQ's, then systemctl restart storenode; the rest goes on",
        )


def outbox(found: Mapping[str, Any]) -> Finding:
    """Judge the outbox by the `outbox` member of the status document."""
    if found["pending"] is None:
        return Finding(FAIL, "The outbox cannot be read: what the store tells HQ may be stuck.", "storenode outbox")
    if found["refused"]:
        return Finding(WARN, f"{count(found['refused'], 'entry', 'entries')} refused by HQ.", "storenode outbox")
    said, age_s = count(found["pending"], "entry waits", "entries wait"), found["oldest_age_seconds"]
    if age_s is not None and age_s > WAITS_LONG_S:
        return Finding(WARN, f"{said} for HQ, the oldest for {span(age_s)}; none is lost.", LINE)
    return Finding(OK, f"{said} for HQ.")


def disk(free_bytes: int) -> Finding:
    """Judge the space that is left where the replica is."""
    left = f"{size(free_bytes)} are free on the replica's disk"
    if free_bytes < FREE_BYTES_MIN:
        return Finding(FAIL, f"Only {left}: updates will stop.", "df -h, then free some space")
    if free_bytes < FREE_BYTES_LOW:
        return Finding(WARN, f"Only {left}.", "df -h, then free some space")
    return Finding(OK, f"{left}.")


def clock(found: Mapping[str, Any]) -> Finding:
    """Judge the clock by the `clock` member of the status document."""
    skew_s, verdict = found["skew_seconds"], found.get("verdict")
    if skew_s is not None and abs(skew_s) > SKEW_S_MAX:
        way = "ahead of" if skew_s > 0 else "behind"
        guarded = verdict in ("corrected", "behind")
        so = "prices go by HQ's time until it is set" if guarded else "prices change at the wrong time"
        return Finding(FAIL, f"The clock is {span(int(abs(skew_s)))} {way} HQ's: {so}.", "timedatectl")
    match verdict:
        case "held":
            return Finding(
                FAIL,
                f"The clock is too far past all that HQ vouched for: prices go on from {found['known_at']}.",
                "timedatectl; if it is right after all, reach HQ, or raise clock_hold_days",
            )
        case "behind":
            return Finding(
                FAIL,
                f"The clock is behind HQ's newest time: prices go by {found['known_at']} and not before.",
                "timedatectl",
            )
        case "corrected":
            off = span(abs(found["correction_seconds"]))
            said = f"The clock was {off} off when HQ was last heard; prices still allow for it."
            return Finding(FAIL, said, "timedatectl")
        case "suspect":
            return Finding(
                WARN,
                "The clock is over a day past what HQ last vouched for, and HQ has not been heard since.",
                "timedatectl; is the date right?",
            )
    if skew_s is None:
        return Finding(OK, "The clock could not be compared with HQ's yet.")
    return Finding(OK, f"The clock is {skew_s:+.1f} s against HQ's.")


def _daemon(status: Mapping[str, Any]) -> Iterator[Finding]:
    found = daemon(status["pid"], running=status["pid"] is not None, seen_s=status["seen_seconds"])
    if found.verdict != OK:
        yield found
    elif not status["connected"]:
        yield Finding(WARN, "The line to the broker is down; the store sells on with what it has.", LINE)


def read_models(states: Mapping[str, str]) -> Iterator[Finding]:
    """What is to be said of the read models; nothing of those that are well."""
    for name, state in states.items():
        if state == "stale":
            yield Finding(WARN, f"{name}: is to be rebuilt; until then it answers from what was.")


def log(database: Mapping[str, Any]) -> Iterator[Finding]:
    """What is to be said of the write-ahead log; nothing while it is short."""
    if database["wal_bytes"] > WAL_BYTES_MAX:
        yield Finding(
            WARN,
            f"The log has grown to {size(database['wal_bytes'])}: a reader keeps an old snapshot open.",
            f"fuser -v {database['path']}",
        )


def count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def span(seconds: int | None) -> str:
    """A duration for a person, in its largest unit; None: longer than anyone knows."""
    if seconds is None:
        return "ever"
    for unit_s, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= unit_s:
            return count(seconds // unit_s, unit, unit + "s")
    return count(seconds, "second", "seconds")


def size(size_bytes: float) -> str:
    """Bytes for a person, decimal units."""
    if size_bytes < 1000:
        return f"{size_bytes} bytes"
    for unit in ("kB", "MB", "GB"):
        size_bytes /= 1000
        if size_bytes < 1000:
            return f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / 1000:.1f} TB"
