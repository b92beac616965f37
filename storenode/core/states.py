"""What a stream is doing, and what readers are told of it: a table, without IO.

| doubt about the rows | line down | waiting for HQ's columns | fetching | otherwise |
|---|---|---|---|---|
| none                 | offline   | catching_up | catching_up | catching_up, or live |
| harmless             | offline   | catching_up | rebuilding  | rebuilding |
| any other            | diverged  | diverged    | rebuilding  | diverged |

A stream that never was complete is bootstrapping, whatever it does. A harmless doubt is about rows that still are
what HQ had at their position.
"""

from __future__ import annotations

from storenode.core.phases import Phase

ASKED = "asked"
"""The doubt of a stream whose rebuild somebody asked for."""

COLUMNS = "columns"
"""The doubt of a stream whose rows lack columns that are declared since."""

HARMLESS = (ASKED, COLUMNS)


def state_of(phase: Phase, epoch: str | None, doubt: str | None) -> str:
    """The stream's public state, as the `freshness` view names it."""
    if epoch is None:
        return "bootstrapping"
    if doubt is not None and doubt not in HARMLESS:
        return "rebuilding" if phase is Phase.FETCHING else "diverged"
    if phase is Phase.DOWN:
        return "offline"
    if phase is Phase.LIVE and doubt is None:
        return "live"
    return "catching_up" if doubt is None or phase is Phase.HALTED else "rebuilding"
