"""The phases of a follower: written down once more by hand, and what must hold whatever the table says."""

from __future__ import annotations

from itertools import product

import pytest

from storenode.core.phases import CATCHING_UP, TRANSITIONS, Phase, PhaseEvent, after

BY_HAND = """
                  DOWN           AWAITING_HEAD  FETCHING       LIVE           HALTED
CONNECTED         AWAITING_HEAD  AWAITING_HEAD  AWAITING_HEAD  AWAITING_HEAD  AWAITING_HEAD
DISCONNECTED      DOWN           DOWN           DOWN           DOWN           DOWN
HEAD_NEEDED       DOWN           AWAITING_HEAD  AWAITING_HEAD  AWAITING_HEAD  AWAITING_HEAD
CATCH_UP_PLANNED  -              FETCHING       FETCHING       -              -
CAUGHT_UP         -              LIVE           LIVE           -              -
COLUMNS_UNKNOWN   DOWN           HALTED         HALTED         HALTED         HALTED
COLUMNS_KNOWN     -              -              -              -              AWAITING_HEAD
"""


def cells() -> list[tuple[Phase, PhaseEvent, Phase | None]]:
    header, *lines = BY_HAND.strip().splitlines()
    phases = [Phase[name] for name in header.split()]
    found = []
    for event, *afterwards in (line.split() for line in lines):
        found += [
            (phase, PhaseEvent[event], None if name == "-" else Phase[name])
            for phase, name in zip(phases, afterwards, strict=True)
        ]
    return found


@pytest.mark.parametrize(("phase", "event", "follows"), cells())
def test_each_event_leads_where_the_table_written_by_hand_says(
    phase: Phase, event: PhaseEvent, follows: Phase | None
) -> None:
    if follows is None:
        with pytest.raises(ValueError, match=f"{event.value}.* cannot happen .* {phase.value}"):
            after(phase, event)
    else:
        assert after(phase, event) is follows


def test_the_table_written_by_hand_has_every_pair() -> None:
    assert {(phase, event) for phase, event, _ in cells()} == set(product(Phase, PhaseEvent))


def test_every_phase_can_be_reached_and_left() -> None:
    for phase in Phase:
        reached = {phase}
        while more := {after(p, e) for p in reached for e in TRANSITIONS[p]} - reached:
            reached |= more
        assert reached == set(Phase), f"from {phase.value}"


@pytest.mark.parametrize("phase", [Phase.AWAITING_HEAD, Phase.FETCHING])
def test_a_phase_that_waits_for_a_message_is_left_by_its_deadline(phase: Phase) -> None:
    assert phase in CATCHING_UP
    assert after(phase, PhaseEvent.HEAD_NEEDED) is Phase.AWAITING_HEAD
