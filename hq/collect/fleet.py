"""Whether each store has what the master had: what it last said of its streams, against the master's log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hq.collect.inbox import refusal_of
from hq.master.store import Master


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
