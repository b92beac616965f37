"""What a follower is doing with its stream: a table of phases and events, without IO.

Theory. The only truth is the position in the replica; a connection brings nothing but questions. So every connection
begins with the same question: what is HQ's newest state? The stream's *head*, which the broker keeps, answers it. From
the head follows either that nothing is missing (LIVE), or which segments are (FETCHING). Bootstrap, an hour without a
line and a month without one differ only in how many segments that is.

    DOWN ---- connected ----> AWAITING_HEAD <---- head needed ---- LIVE
                                 |       ^                           ^
               catch-up planned  |       | head needed               | caught up
                                 v       |                           |
                                FETCHING + --------------------------+

| phase         | subscribed to        | a live batch        | a head      | what ends it                            |
|---------------|----------------------|---------------------|-------------|-----------------------------------------|
| DOWN          | nothing              | is ignored          | is ignored  | a connection                            |
| AWAITING_HEAD | live, head           | waits (is parked)   | is read     | a head that is new enough               |
| FETCHING      | live, head, segments | waits (is parked)   | is read     | the last segment; a newer head          |
| LIVE          | live                 | is applied          | is ignored  | a gap, a fork, a rebuild: what is here  |
|               |                      |                     |             | does not continue to what came          |
| HALTED        | live                 | is tried: the first | is ignored  | HQ's columns are those declared here    |
|               |                      | readable ends it    |             | again, or somebody asks for a rebuild   |

Whatever goes wrong while a line is up has one answer: HEAD_NEEDED, ask for the head again. Two phases can wait for a
message that never comes, AWAITING_HEAD and FETCHING; their deadline is a HEAD_NEEDED too, so no phase is left only by
luck. Losing the line ends every phase, and nothing that was held in memory survives it. A pair that the table lacks
cannot happen: the follower has a mistake, and `after` says so.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class Phase(enum.Enum):
    DOWN = "down"
    AWAITING_HEAD = "awaiting_head"
    FETCHING = "fetching"
    LIVE = "live"
    HALTED = "halted"
    """HQ's columns are not those declared here: the rows serve as they are until a batch can be read again."""


class PhaseEvent(enum.Enum):
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    HEAD_NEEDED = "head needed"
    """A gap, a fork, a rebuild, a full memory, or a head or segment that did not come in time."""

    CATCH_UP_PLANNED = "catch-up planned"
    """A head came that has changes which the replica lacks."""

    CAUGHT_UP = "caught up"
    """The replica has all that the head has."""

    COLUMNS_UNKNOWN = "columns unknown"
    """HQ's columns are not those declared here."""

    COLUMNS_KNOWN = "columns known"
    """While halted: a live batch came that can be read."""


_Row = Mapping[PhaseEvent, Phase]

_LINE_IS_UP: _Row = {
    PhaseEvent.CONNECTED: Phase.AWAITING_HEAD,  # a new connection in place of one whose end nobody saw
    PhaseEvent.DISCONNECTED: Phase.DOWN,
    PhaseEvent.HEAD_NEEDED: Phase.AWAITING_HEAD,
    PhaseEvent.COLUMNS_UNKNOWN: Phase.HALTED,
}

TRANSITIONS: Mapping[Phase, _Row] = {
    Phase.DOWN: {
        PhaseEvent.CONNECTED: Phase.AWAITING_HEAD,
        PhaseEvent.DISCONNECTED: Phase.DOWN,
        PhaseEvent.HEAD_NEEDED: Phase.DOWN,  # the next connection asks anyway
        PhaseEvent.COLUMNS_UNKNOWN: Phase.DOWN,
    },
    Phase.AWAITING_HEAD: {
        **_LINE_IS_UP,
        PhaseEvent.CATCH_UP_PLANNED: Phase.FETCHING,
        PhaseEvent.CAUGHT_UP: Phase.LIVE,
    },
    Phase.FETCHING: {
        **_LINE_IS_UP,
        PhaseEvent.CATCH_UP_PLANNED: Phase.FETCHING,  # by a newer head, which takes the place of the one before
        PhaseEvent.CAUGHT_UP: Phase.LIVE,
    },
    Phase.LIVE: _LINE_IS_UP,
    Phase.HALTED: {**_LINE_IS_UP, PhaseEvent.COLUMNS_KNOWN: Phase.AWAITING_HEAD},
}

CATCHING_UP = frozenset({Phase.AWAITING_HEAD, Phase.FETCHING})
"""The phases in which heads are read and live batches wait."""


def after(phase: Phase, event: PhaseEvent) -> Phase:
    """The phase that follows. Raises ValueError for an event that cannot happen in this phase."""
    try:
        return TRANSITIONS[phase][event]
    except KeyError:
        raise ValueError(f"{event.value!r} cannot happen to a follower that is {phase.value}") from None
