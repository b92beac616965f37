"""Seeded simulation: every seed keeps the invariant through the storm and converges in the calm."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hq.publish.broker_heads import BrokerHeads
from storelink.contract.messages import Head, Live
from storenode.core import verdicts
from storenode.follow import follower
from tests.simulation.world import World

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "120"))
CHUNK = 25
CONTROL_SEEDS = range(60, 120)


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
        world = World(15, directory)
        world.storm(120)
        world.calm(1_500)
        world.close()
        traces.append(world.trace)
    assert traces[0] == traces[1]
    assert len(traces[0]) > 50


@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_every_seed_keeps_the_invariant_and_converges(start: int, fast_directory: Path) -> None:
    for seed in range(start, min(start + CHUNK, SEEDS)):
        live_through(seed, fast_directory)


def takes_gaps(patch: pytest.MonkeyPatch) -> None:
    """A store that takes the batch behind a lost one for the next."""

    def judge(position: verdicts.Position, live: Live) -> verdicts.BatchVerdict:
        found = verdicts.judge(position, live)
        return verdicts.Advance() if isinstance(found, verdicts.Gap) and position.epoch is not None else found

    patch.setattr(follower, "judge", judge)


def goes_back(patch: pytest.MonkeyPatch) -> None:
    """A store that replaces rows to be rebuilt by whatever head there is."""

    def plan(
        position: verdicts.Position, head: Head, *, missing_to: int = 0, rebuild_due: str | None = None
    ) -> verdicts.Plan:
        lower = position if rebuild_due is None else replace(position, seq=0)
        return verdicts.plan(lower, head, missing_to=missing_to, rebuild_due=rebuild_due)

    patch.setattr(follower, "plan", plan)


def knows_all_heads(patch: pytest.MonkeyPatch) -> None:
    """An HQ that takes every head on the broker for its own."""
    patch.setattr(BrokerHeads, "_is_foreign", lambda *_: False)


@pytest.mark.parametrize("sabotage", [takes_gaps, goes_back, knows_all_heads])
def test_control_a_chain_that_is_sabotaged_is_caught(
    sabotage: Callable[[pytest.MonkeyPatch], None], fast_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch)
    with pytest.raises(AssertionError):
        for seed in CONTROL_SEEDS:
            live_through(seed, fast_directory)


def live_through(seed: int, fast_directory: Path) -> None:
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
