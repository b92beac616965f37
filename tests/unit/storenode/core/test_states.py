"""The public state of a stream and of a store: written down once more by hand."""

from __future__ import annotations

import pytest

from storenode.core.phases import Phase
from storenode.core.states import LIVE, UNUSABLE, USABLE, exit_code, overall, state_of

BY_HAND = """
rebuild_due  DOWN      AWAITING_HEAD  FETCHING     LIVE        HALTED
-            offline   catching_up    catching_up  live        catching_up
asked        offline   rebuilding     rebuilding   rebuilding  catching_up
columns      offline   rebuilding     rebuilding   rebuilding  catching_up
scan         diverged  diverged       rebuilding   diverged    diverged
ahead        diverged  diverged       rebuilding   diverged    diverged
"""


def cells() -> list[tuple[Phase, str | None, str]]:
    header, *lines = (line.split() for line in BY_HAND.strip().splitlines())
    return [
        (Phase[name], None if due == "-" else due, state)
        for due, *states in lines
        for name, state in zip(header[1:], states, strict=True)
    ]


@pytest.mark.parametrize(("phase", "rebuild_due", "state"), cells())
def test_a_stream_is_in_the_state_of_the_table_once_it_was_complete(
    phase: Phase, rebuild_due: str | None, state: str
) -> None:
    assert state_of(phase, "e", rebuild_due) == state
    assert state_of(phase, None, rebuild_due) == "bootstrapping"


def stream(state: str, epoch: str | None = "e", verified_ok: bool | None = True) -> dict[str, object]:
    return {"state": state, "epoch": epoch, "verified_ok": verified_ok}


@pytest.mark.parametrize(
    ("streams", "state", "code"),
    [
        ({"price/all": stream("live"), "product/all": stream("live")}, "live", LIVE),
        ({"price/all": stream("live"), "product/all": stream("offline")}, "offline", USABLE),
        ({"price/all": stream("live", verified_ok=False)}, "diverged", UNUSABLE),
        ({"price/all": stream("rebuilding", verified_ok=False)}, "rebuilding", USABLE),
        ({"price/all": stream("bootstrapping", epoch=None), "product/all": stream("live")}, "bootstrapping", UNUSABLE),
        ({"price/all": stream("live"), "price/west": stream("bootstrapping", epoch=None)}, "live", LIVE),
        ({"price/all": stream("live"), "tax/all": stream("bootstrapping", epoch=None)}, "live", LIVE),
        ({}, "bootstrapping", UNUSABLE),
    ],
)
def test_a_store_is_as_well_as_the_worst_stream_that_counts(
    streams: dict[str, dict[str, object]], state: str, code: int
) -> None:
    assert (overall(streams), exit_code(overall(streams))) == (state, code)
