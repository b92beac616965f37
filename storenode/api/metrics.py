"""What `GET /metrics` answers: how the replica stands, and how the API does, in Prometheus's text (format 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from storenode.core.states import STATES

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

Labels = Mapping[str, str]
Sample = tuple[Labels, float | int | None]

_OF_A_STREAM = (
    ("position", "Seq through which the replica has the stream."),
    ("head_seq", "Newest seq that HQ is known to have."),
    ("lag_events", "Events between the two."),
    ("stale_seconds", "Seconds since the replica was known to be at HQ's head."),
    ("quarantined", "Entities that are held in quarantine."),
)


class Metrics:
    """Counts of this process; owned by the event loop's thread."""

    def __init__(self) -> None:
        self._answered: Counter[tuple[str, int]] = Counter()
        self._took = Histogram("route")

    def observe(self, route: str, status: int, took_s: float) -> None:
        self._answered[route, status] += 1
        self._took.observe(route, took_s)

    def page(self, status: Mapping[str, Any] | None) -> bytes:
        """All metrics; `status`: the status document, None while no replica can be read."""
        parts: list[Iterable[str]] = [
            gauge("storenode_replica_up", "Whether the replica can be read.", int(status is not None)),
            family(
                "storenode_api_requests_total",
                "counter",
                "Requests answered since the API started.",
                [({"route": route, "status": str(status)}, n) for (route, status), n in self._answered.items()],
            ),
            self._took.lines("storenode_api_request_seconds", "Seconds from a request's headers to its answer."),
        ]
        return page(parts if status is None else [_store(status), _streams(status["streams"]), *parts])


def _store(status: Mapping[str, Any]) -> Iterator[str]:
    database, outbox = status["database"], status["outbox"]
    yield from gauge("storenode_daemon_up", "Whether the daemon runs.", int(status["pid"] is not None))
    yield from gauge("storenode_connected", "Whether the line to the broker is up.", int(status["connected"]))
    yield from gauge("storenode_uptime_seconds", "Since the daemon started.", status["uptime_seconds"])
    yield from gauge("storenode_clock_skew_seconds", "Against HQ's clock.", status["clock"]["skew_seconds"])
    yield from gauge("storenode_database_bytes", "The replica's file.", database["bytes"])
    yield from gauge("storenode_wal_bytes", "The replica's write-ahead log.", database["wal_bytes"])
    yield from gauge("storenode_free_bytes", "Free on the replica's disk.", database["free_bytes"])
    yield from gauge("storenode_outbox_pending", "Entries that wait for HQ.", outbox["pending"])
    yield from gauge("storenode_outbox_refused", "Entries that HQ refused or that cannot travel.", outbox["refused"])
    yield from gauge("storenode_outbox_acked_seq", "Seq through which HQ has all.", outbox["acked_seq"])
    yield from gauge("storenode_outbox_oldest_seconds", "Age of the oldest that waits.", outbox["oldest_age_seconds"])
    counted: list[tuple[dict[str, str], int]] = [({"event": name}, n) for name, n in status["counters"].items()]
    yield from family("storenode_events_total", "counter", "What the daemon counted since its start.", counted)


def _streams(streams: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for key, help_text in _OF_A_STREAM:
        yield from family(
            f"storenode_stream_{key}", "gauge", help_text, [({"stream": name}, s[key]) for name, s in streams.items()]
        )
    yield from family(
        "storenode_stream_state",
        "gauge",
        "1 for the state that a stream is in.",
        [({"stream": n, "state": state}, int(s["state"] == state)) for n, s in streams.items() for state in STATES],
    )
    yield from family(
        "storenode_stream_refused_times",
        "gauge",
        "How often a message that HQ keeps sending was refused; 0: none is.",
        [({"stream": n}, s["refusal"]["times"] if s["refusal"] else 0) for n, s in streams.items()],
    )
    yield from family(
        "storenode_stream_verified",
        "gauge",
        "Whether the last scan found HQ's rows.",
        [({"stream": n}, None if (ok := s["verified_ok"]) is None else int(ok)) for n, s in streams.items()],
    )


def family(name: str, kind: str, help_text: str, samples: Iterable[Sample]) -> Iterator[str]:
    """The lines of one metric; a sample of None is left out, and so is a metric without samples."""
    lines = [_line(name, labels, value) for labels, value in samples if value is not None]
    if lines:
        yield from _header(name, kind, help_text)
        yield from lines


def gauge(name: str, help_text: str, value: float | int | None) -> Iterator[str]:
    """The lines of a metric of one sample without labels."""
    return family(name, "gauge", help_text, [({}, value)])


@dataclass(slots=True)
class Histogram:
    """How long something took, counted in `BUCKETS_S` by one label's value; grows with that label's values only."""

    label: str
    _counts: dict[str, list[int]] = field(default_factory=dict)
    _sums_s: dict[str, float] = field(default_factory=dict)

    def observe(self, value: str, took_s: float) -> None:
        counts = self._counts.setdefault(value, [0] * (len(BUCKETS_S) + 1))
        counts[bisect_left(BUCKETS_S, took_s)] += 1
        self._sums_s[value] = self._sums_s.get(value, 0.0) + took_s

    def lines(self, name: str, help_text: str) -> Iterator[str]:
        if not self._counts:
            return
        yield from _header(name, "histogram", help_text)
        for value, counts in self._counts.items():
            labels, so_far = {self.label: value}, 0
            for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), counts, strict=True):
                so_far += count
                yield _line(f"{name}_bucket", labels | {"le": bound}, so_far)
            yield _line(f"{name}_sum", labels, self._sums_s[value])
            yield _line(f"{name}_count", labels, so_far)


def page(parts: Sequence[Iterable[str]]) -> bytes:
    """All lines, each ended by a line feed."""
    return "".join(f"{line}\n" for part in parts for line in part).encode()


def _header(name: str, kind: str, help_text: str) -> tuple[str, str]:
    return f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"


def _line(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
