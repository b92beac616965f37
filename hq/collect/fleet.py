"""The fleet: what each store last said of itself and of its streams, held against the master."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from hq.collect.inbox import inbox_path, reading, refusal_of
from hq.collect.inbox import stores as read_stores
from hq.master.store import Master
from storelink.contract.times import rfc3339

FleetState = Literal["current", "behind", "never", "differs", "refuses"]
FLEET_STATES: tuple[FleetState, ...] = get_args(FleetState)
"""What a stream of a store is, held against the master; `verify_fleet` says what each means."""

BOOTSTRAPPING = "bootstrapping"
"""A stream's state in a store that never had all of it."""


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """
    What a store last said of itself.

    Attributes:
        state: one of the states of docs/readers.md; `offline` for a store that is not connected.
        seen_at: RFC 3339, by HQ's clock.
        streams: by name: the store's `state`, `epoch`, `position`, `digest`, `verified_ok`; `lag_events`: how far
            behind the master, None where that cannot be said; `refusal`: the message that it refuses, or None.
        outbox: its `epoch`, `pending`, `acked_seq` and `refused`; None if the store never said.
        skew_ms: how far the store's clock is ahead of HQ's; None if unknown.
    """

    online: bool
    state: str
    seen_at: str
    streams: Mapping[str, Mapping[str, Any]]
    outbox: Mapping[str, Any] | None
    versions: Mapping[str, str]
    skew_ms: int | None


def stores_of(master: Master) -> dict[str, StoreStatus]:
    """Read each store's last status, by name, and hold it against the master that is open."""
    with reading(inbox_path(master.path)) as inbox:
        found = read_stores(inbox) if inbox else {}
    heads = {str(row.stream): (row.epoch, row.head_seq) for row in master.streams()}
    return {name: _store(each, heads) for name, each in found.items()}


def verify_fleet(master: Master, stores: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """
    Compare what each store last said of its streams with the master's log; by store and stream.

    `state`:
        current: it is at the master's head, and its digest is the master's.
        behind: it is at an earlier position of the log, with the digest that the master had there; or in another
            epoch, as after a restore of the master, where nothing can be compared (`ok` None).
        never: it never was complete: there is nothing to compare yet (`ok` None).
        differs: its digest is not what the master had at that position, or its own scan found so.
        refuses: it refuses a message of HQ's again and again (`refusal`), and does not come to where HQ is.

    `ok`: True if the digest is the master's at that position, False for differs and refuses. `head_seq`: where the
    master is; None if HQ has no such stream.

    Args:
        stores: as `hq.collect.inbox.stores` reads them.
    """
    with master.reading():
        heads = {str(row.stream): (row.epoch, row.head_seq) for row in master.streams()}
        return {
            store: {
                name: _judged(master, name, status, heads.get(name))
                for name, status in (found["status"] or {"streams": {}})["streams"].items()
            }
            for store, found in stores.items()
        }


def _judged(master: Master, name: str, status: Mapping[str, Any], head: tuple[str, int] | None) -> dict[str, Any]:
    state, ok = _state_of(master, name, status, head)
    return {
        "state": state,
        "position": status["position"],
        "head_seq": None if head is None else head[1],
        "digest": status["digest"],
        "verified_ok": status["verified_ok"],
        "ok": ok,
        "refusal": refusal_of(status),
    }


def _state_of(
    master: Master, name: str, status: Mapping[str, Any], head: tuple[str, int] | None
) -> tuple[FleetState, bool | None]:
    if refusal_of(status) is not None:
        return "refuses", False
    if status["epoch"] is None or status["state"] == BOOTSTRAPPING:
        return "never", None
    epoch, head_seq = head or (None, 0)
    if status["epoch"] != epoch:
        return "behind", None
    if status["verified_ok"] is False or master.find_digest(name, status["position"]) != status["digest"]:
        return "differs", False
    return ("current" if status["position"] == head_seq else "behind"), True


def _store(found: Mapping[str, Any], heads: Mapping[str, tuple[str, int]]) -> StoreStatus:
    said = found["status"] or {"state": "offline", "streams": {}, "outbox": None, "versions": {}}
    streams = {}
    for name, stream in said["streams"].items():
        epoch, head_seq = heads.get(name, (None, 0))
        lag = max(head_seq - stream["position"], 0) if stream["epoch"] == epoch or not stream["epoch"] else None
        streams[name] = stream | {"lag_events": lag, "refusal": refusal_of(stream)}
    return StoreStatus(
        online=found["online"],
        state=said["state"] if found["online"] else "offline",
        seen_at=rfc3339(found["seen_at_ms"]),
        streams=streams,
        outbox=said["outbox"],
        versions=said["versions"],
        skew_ms=said.get("skew_ms"),
    )
