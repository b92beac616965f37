"""How much every torture suite does, and from which seed: `TORTURE_SCALE` and `TORTURE_SEED`.

`TORTURE_SCALE` multiplies rounds, points and seconds: 1 is what CI runs, `make torture-long` runs more. Every random
choice comes from `TORTURE_SEED`, which pytest's summary prints.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from random import Random
from typing import TypeVar

SCALE = float(os.environ.get("TORTURE_SCALE") or "1")
SEED = int(os.environ.get("TORTURE_SEED") or "20261125")

T = TypeVar("T")


def scaled(count: int) -> int:
    """A count at this scale; at least one."""
    return max(1, round(count * SCALE))


def seeded(name: str) -> Random:
    """A source of randomness for one test: other tests have other numbers, another seed gives all others."""
    return Random(f"{SEED} {name}")


def some(points: Sequence[T], name: str) -> list[T]:
    """All points, in their order; below scale 1 a share of them, by the seed."""
    if SCALE >= 1:
        return list(points)
    chosen = set(seeded(name).sample(range(len(points)), min(len(points), scaled(len(points)))))
    return [point for index, point in enumerate(points) if index in chosen]
