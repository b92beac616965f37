"""The fleet: what each store last said of itself and of its streams, held against the master."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hq.collect.inbox import inbox_path, reading, refusal_of
from hq.collect.inbox import stores as read_stores
from hq.master.store import Master
from storelink.contract.times import rfc3339


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

    `ok`: True if the store's digest is what the master had at that position, and the store's own scan did not find
    otherwise. None if nothing is known: the store is in another epoch, or never bootstrapped. False also where the
    store refuses a message of HQ's again and again (`refusal`): it does not come to where HQ is.

    Args:
        stores: as `hq.collect.inbox.stores` reads them.
    """
    with master.reading():
        epochs = {str(row.stream): row.epoch for row in master.streams()}
        return {
            store: {
                name: {
                    "position": status["position"],
                    "digest": status["digest"],
                    "verified_ok": status["verified_ok"],
                    "ok": _is_ok(master, name, status, epochs.get(name)),
                    "refusal": refusal_of(status),
                }
                for name, status in (found["status"] or {"streams": {}})["streams"].items()
            }
            for store, found in stores.items()
        }


def _is_ok(master: Master, name: str, status: Mapping[str, Any], epoch: str | None) -> bool | None:
    if refusal_of(status) is not None:
        return False
    if status["epoch"] != epoch:
        return None
    return status["verified_ok"] is not False and master.find_digest(name, status["position"]) == status["digest"]


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
