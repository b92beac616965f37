"""The order of precedence, written down once more by hand: who wins, and what the loser is told.

That the views rank as it does: tests/unit/storenode/replica/test_schema.py, tests/property/test_prices_in_time.py.
"""

from __future__ import annotations

import pytest

from storelink.contract.precedence import RULE, Line, candidates, in_force_since
from storelink.contract.schedule import Step


def line(scope: str, rank: int, kind: str, starts_at: int, amount_minor: int) -> Line:
    return Line(scope, rank, kind, "EUR", (Step(starts_at, None, amount_minor),), 1)


BASE = line("all", 0, "regular", 10, 100)


@pytest.mark.parametrize(
    ("winner", "loser", "why"),
    [
        (line("@7", 9, "override", 1, 900), BASE, "this store's own price wins over every price of HQ"),
        (line("west", 1, "regular", 1, 900), BASE, "the scope west wins over all"),
        (line("west", 1, "regular", 1, 900), line("all", 0, "promotion", 9, 1), "the scope west wins over all"),
        (line("all", 0, "promotion", 1, 900), BASE, "a promotion wins over a regular price"),
        (line("all", 0, "clearance", 1, 900), BASE, "a clearance wins over a regular price"),
        (
            line("all", 0, "clearance", 2, 900),
            line("all", 0, "promotion", 1, 1),
            "of {this} and {that} the one that began later wins, the clearance",
        ),
        (
            line("all", 0, "promotion", 1, 1),
            line("all", 0, "clearance", 1, 2),
            "both began at once, and the lower amount wins",
        ),
        (
            line("all", 0, "clearance", 1, 1),
            line("all", 0, "promotion", 1, 1),
            "both began at once at the same amount",
        ),
    ],
)
def test_the_first_difference_decides(winner: Line, loser: Line, why: str) -> None:
    for lines in ([winner, loser], [loser, winner]):
        first, second = candidates(lines, 20)
        assert (first.line, first.won, second.line, second.won) == (winner, True, loser, False)
        assert first.why == why.format(this=winner.kind, that=loser.kind)
        assert second.why == why.format(this=loser.kind, that=winner.kind)


def test_the_rule_is_said_in_one_sentence() -> None:
    assert RULE == (
        "a local override wins; then the most specific scope; then promotion and clearance over regular;"
        " then the latest start; then the lower amount"
    )


def test_a_price_is_in_force_since_it_won_whatever_began_below_it_meanwhile() -> None:
    lines = [
        Line("all", 0, "regular", "EUR", (Step(0, None, 300),), 1),
        Line("all", 0, "promotion", "EUR", (Step(60, 80, 200),), 2),
        Line("zone-west", 1, "regular", "EUR", (Step(50, 100, 250),), 3),
    ]
    assert {at: in_force_since(lines, at) for at in (-1, 0, 49, 50, 70, 99, 100, 130)} == {
        -1: None,
        0: 0,
        49: 0,
        50: 50,
        70: 50,
        99: 50,
        100: 100,
        130: 100,
    }
