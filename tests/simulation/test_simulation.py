"""Seeded simulation: every seed keeps the invariant through the storm and converges in the calm."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation.world import World

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "120"))
CHUNK = 25


@pytest.fixture
def fast_directory() -> Iterator[Path]:
    """A directory in memory where there is one: the simulation is about logic, the crash tests about disks."""
    shm = Path("/dev/shm")
    found = Path(tempfile.mkdtemp(prefix="storenode-sim-", dir=shm if shm.is_dir() else None))
    yield found
    shutil.rmtree(found, ignore_errors=True)


def test_a_seed_replays_identically(fast_directory: Path) -> None:
    traces = []
    for life in range(2):
        directory = fast_directory / str(life)
        directory.mkdir()
        world = World(7, directory)
        world.storm(120)
        world.calm(1_500)
        world.close()
        traces.append(world.trace)
    assert traces[0] == traces[1]
    assert len(traces[0]) > 50


@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_every_seed_keeps_the_invariant_and_converges(start: int, fast_directory: Path) -> None:
    for seed in range(start, min(start + CHUNK, SEEDS)):
        directory = fast_directory / str(seed)
        directory.mkdir()
        world = World(seed, directory)
        try:
            world.storm(120)
            world.calm(1_500)
        except BaseException as error:
            error.add_note(f"seed {seed}: SIMULATION_SEEDS={seed + 1} pytest tests/simulation")
            raise
        finally:
            world.close()
        shutil.rmtree(directory)
