"""Power cuts on a real file system while a store and HQ write: what was acknowledged is there, nothing is damaged."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from testbed import loop_disk
from testbed.loop_disk import LoopDisk
from tests.faults.acts.scenes import Record
from tests.faults.acts.selling import LONG, long_stories
from tests.faults.acts.stage import Stage
from tests.faults.scale import scaled, seeded
from tests.oracle import files as oracle

CUTS = scaled(50)
LIVES = 5
"""Cuts that one set of files goes through; then files are made anew, so that their making is cut off too."""

pytestmark = pytest.mark.skipif(bool(loop_disk.missing()), reason=loop_disk.missing() or "disks can be made")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with loop_disk.own_mounts(), Stage() as found:
        yield found


class Shop:
    """A store and its HQ on one disk, which lives through power cuts; `acked` and `committed` are what it was told."""

    def __init__(self, disk: LoopDisk, stage: Stage, name: str) -> None:
        self.directory = disk.root / name
        self.directory.mkdir()
        os.sync()
        self.acked: list[list[int]] = []
        self.committed: list[int] = []
        self.lost = self.doubled = 0
        self.problems: list[object] = []
        self._disk, self._stage, self._lives = disk, stage, 0

    def cut(self, rng: Random, **parameters: Any) -> None:
        """Let it work, cut the power between any two of its instructions, and look at what is left."""
        self._lives += 1
        lines, cut_at = 0, rng.randint(1, LONG // 4)

        def count(_: dict[str, Any]) -> None:
            nonlocal lines
            lines += 1
            if lines == cut_at:
                self._stage.signal(signal.SIGSTOP)
                self._disk.cut()
                self._stage.signal(signal.SIGKILL)

        played = self._stage.play("selling", self.directory, life=self._lives, on_line=count, **parameters)
        self.acked += played.all_of("acked")
        self.committed += played.all_of("committed")
        self.problems += played.all_of("raised")
        if played.code != -signal.SIGKILL:
            self.problems.append(f"it ended before the power was cut: {played.said[-1:]}")
        self._disk.come_back(rng)
        self._look()

    def _look(self) -> None:
        products, prices = long_stories()
        try:
            verdicts = (
                oracle.judge_upstream(self.directory, self.acked),
                oracle.judge_master(self.directory / "hq.db", prices, self.committed),
                oracle.judge_replica(self.directory / "replica.db", [products]),
            )
        except sqlite3.DatabaseError as error:
            self.problems.append(error.sqlite_errorname)
            return
        for verdict in verdicts:
            self.problems += verdict.wrong
            self.lost, self.doubled = self.lost + verdict.lost, self.doubled + verdict.doubled


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_power_cuts_lose_nothing_that_was_acknowledged(kind: str, stage: Stage, record_property: Record) -> None:
    rng, acked, lost, doubled = seeded(kind), 0, 0, 0
    problems = list[object]()
    with LoopDisk(kind) as disk:
        for number in range(0, CUTS, LIVES):
            shop = Shop(disk, stage, f"{number}")
            for _ in range(min(LIVES, CUTS - number)):
                shop.cut(rng)
            acked += len(shop.acked) + len(shop.committed)
            lost, doubled, problems = lost + shop.lost, doubled + shop.doubled, problems + shop.problems
    for name, count in (("power cuts", CUTS), ("acknowledged", acked), ("lost", lost), ("doubled", doubled)):
        record_property(name, count)
    assert (lost, doubled, problems) == (0, 0, [])
    assert acked > CUTS


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_control_without_a_sync_at_each_commit_power_cuts_lose(kind: str, synchronous: str, stage: Stage) -> None:
    """The planted fault: what the product sets to FULL is set to less."""
    rng = seeded(f"control {kind}")
    with LoopDisk(kind) as disk:
        for number in range(20):
            shop = Shop(disk, stage, f"{number}")
            shop.cut(rng, synchronous=synchronous)
            if shop.lost:
                return
    pytest.fail("nothing was lost in 20 power cuts: this disk forgets nothing")
