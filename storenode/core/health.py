"""Is this store fit to sell by: one state and one exit code from the states of its streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LIVE, USABLE, UNUSABLE, UNKNOWN = 0, 1, 2, 3
"""Exit codes of `storenode status`."""

_WORST_FIRST = ("diverged", "bootstrapping", "rebuilding", "offline", "catching_up", "live")


def overall(streams: Mapping[str, Mapping[str, Any]]) -> str:
    """The worst state among the streams that count.

    A stream of a narrower scope that HQ never announced does not count: a zone without prices of its own
    has none to wait for. Rows that a scan found to differ from HQ's count as diverged until they are fetched anew.
    """
    states = {
        "diverged" if s["verified_ok"] is False and s["state"] != "rebuilding" else s["state"]
        for name, s in streams.items()
        if s["epoch"] is not None or name.endswith("/all")
    }
    return next((state for state in _WORST_FIRST if state in states), "bootstrapping")


def exit_code(state: str) -> int:
    """0 live and fresh; 1 usable but stale, offline, rebuilding or catching up; 2 not usable."""
    if state == "live":
        return LIVE
    return UNUSABLE if state in ("diverged", "bootstrapping") else USABLE
