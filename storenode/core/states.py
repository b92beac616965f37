"""The public state of a stream, and whether a store is fit to sell by: tables, without IO.

| the rows there are to be rebuilt | line down | waiting for HQ's columns | fetching    | otherwise            |
|----------------------------------|-----------|--------------------------|-------------|----------------------|
| no                               | offline   | catching_up              | catching_up | catching_up, or live |
| yes, but they are HQ's           | offline   | catching_up              | rebuilding  | rebuilding           |
| yes, they may not be HQ's        | diverged  | diverged                 | rebuilding  | diverged             |

A stream that never was complete is bootstrapping, whatever it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import SCOPE_ALL
from storenode.core.phases import Phase

ASKED = "asked"
"""Why a rebuild is due: somebody asked for it."""

COLUMNS = "columns"
"""Why a rebuild is due: the rows lack columns that are declared since."""

SOUND_ROWS = (ASKED, COLUMNS)
"""Reasons for a rebuild of rows that are what HQ had at their position; with any other they may not be."""

STATES = ("diverged", "bootstrapping", "rebuilding", "offline", "catching_up", "live")
"""The worst first."""

NEEDED = tuple(f"{context}/{SCOPE_ALL}" for context in BUILT_IN)
"""The streams without which there is nothing to sell by."""

LIVE, USABLE, UNUSABLE, UNKNOWN = 0, 1, 2, 3
"""Exit codes of `storenode status`."""


def state_of(phase: Phase, epoch: str | None, rebuild_due: str | None) -> str:
    """The stream's public state, as the `freshness` view names it; `rebuild_due` None: no rebuild is due."""
    if epoch is None:
        return "bootstrapping"
    if rebuild_due is not None and rebuild_due not in SOUND_ROWS:
        return "rebuilding" if phase is Phase.FETCHING else "diverged"
    if phase is Phase.DOWN:
        return "offline"
    if phase is Phase.LIVE and rebuild_due is None:
        return "live"
    return "catching_up" if rebuild_due is None or phase is Phase.HALTED else "rebuilding"


def overall(streams: Mapping[str, Mapping[str, Any]]) -> str:
    """The worst state among the streams that count; `streams`: as the status document has them.

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
