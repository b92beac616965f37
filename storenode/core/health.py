"""Is this store fit to sell by: one state and one exit code from the states of its streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import SCOPE_ALL

LIVE, USABLE, UNUSABLE, UNKNOWN = 0, 1, 2, 3
"""Exit codes of `storenode status`."""

NEEDED = tuple(f"{context}/{SCOPE_ALL}" for context in BUILT_IN)
"""The streams without which there is nothing to sell by."""

STATES = ("diverged", "bootstrapping", "rebuilding", "offline", "catching_up", "live")
"""The worst first."""


def overall(streams: Mapping[str, Mapping[str, Any]]) -> str:
    """The worst state among the streams that count.

    A stream of a narrower scope, or of a context that the chain declared itself, does not count before HQ has
    announced it: a zone without prices of its own has none to wait for, and without taxes a store still sells.
    Rows that a scan found to differ from HQ's count as diverged until they are fetched anew.
    """
    states = {
        "diverged" if s["verified_ok"] is False and s["state"] != "rebuilding" else s["state"]
        for name, s in streams.items()
        if s["epoch"] is not None or name in NEEDED
    }
    return next((state for state in STATES if state in states), "bootstrapping")


def exit_code(state: str) -> int:
    """0 live and fresh; 1 usable but stale, offline, rebuilding or catching up; 2 not usable."""
    if state == "live":
        return LIVE
    return UNUSABLE if state in ("diverged", "bootstrapping") else USABLE
