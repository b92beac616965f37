"""What `GET /metrics` tells: how the replica stands, and how the API does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from storenode.api.prometheus_text import Histogram, family, gauge, page
from storenode.core.states import STATES

_OF_A_STREAM = (
    ("position", "Seq through which the replica has the stream."),
    ("head_seq", "Newest seq that HQ is known to have."),
    ("lag_events", "Events between the two."),
    ("stale_seconds", "Seconds since the replica was known to be at HQ's head."),
    ("quarantined", "Entities that are set aside."),
)


class Metrics:
    """Counts of this process; owned by the event loop's thread."""

    def __init__(self) -> None:
        self._answered: Counter[tuple[str, int]] = Counter()
        self._took = Histogram("route")

    def observe(self, route: str, status: int, took_s: float) -> None:
        self._answered[route, status] += 1
        self._took.observe(route, took_s)

    def page(self, standing: Mapping[str, Any] | None) -> bytes:
        """All metrics; `standing`: the status document, None while no replica can be read."""
        parts: list[Iterable[str]] = [
            gauge("storenode_replica_up", "Whether the replica can be read.", int(standing is not None)),
            family(
                "storenode_api_requests_total",
                "counter",
                "Requests answered since the API started.",
                [({"route": route, "status": str(status)}, n) for (route, status), n in self._answered.items()],
            ),
            self._took.lines("storenode_api_request_seconds", "Seconds from a request's headers to its answer."),
        ]
        return page(parts if standing is None else [_store(standing), _streams(standing["streams"]), *parts])


def _store(standing: Mapping[str, Any]) -> Iterator[str]:
    database, outbox = standing["database"], standing["outbox"]
    yield from gauge("storenode_daemon_up", "Whether the daemon runs.", int(standing["pid"] is not None))
    yield from gauge("storenode_connected", "Whether the line to the broker is up.", int(standing["connected"]))
    yield from gauge("storenode_uptime_seconds", "Since the daemon started.", standing["uptime_seconds"])
    yield from gauge("storenode_clock_skew_seconds", "Against HQ's clock.", standing["clock"]["skew_seconds"])
    yield from gauge("storenode_database_bytes", "The replica's file.", database["bytes"])
    yield from gauge("storenode_wal_bytes", "The replica's write-ahead log.", database["wal_bytes"])
    yield from gauge("storenode_free_bytes", "Free on the replica's disk.", database["free_bytes"])
    yield from gauge("storenode_outbox_pending", "Entries that wait for HQ.", outbox["pending"])
    yield from gauge("storenode_outbox_refused", "Entries set aside.", outbox["refused"])
    yield from gauge("storenode_outbox_acked_seq", "Seq through which HQ has all.", outbox["acked_seq"])
    yield from gauge("storenode_outbox_oldest_seconds", "Age of the oldest that waits.", outbox["oldest_age_seconds"])
    counted: list[tuple[dict[str, str], int]] = [({"event": name}, n) for name, n in standing["counters"].items()]
    yield from family("storenode_events_total", "counter", "What the daemon counted since its start.", counted)


def _streams(streams: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for key, told in _OF_A_STREAM:
        yield from family(
            f"storenode_stream_{key}", "gauge", told, [({"stream": name}, s[key]) for name, s in streams.items()]
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
