"""EIO and ENOSPC at every call that changes a disk, once and lasting; readers look while the process stands there."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from testbed import strace
from testbed.strace import FAILED_AT, Point, points
from tests.faults.acts.precious import ENTRIES
from tests.faults.acts.scenes import MASTER, SCENES, UPSTREAM, Props, Record, Scene, calls_of
from tests.faults.acts.stage import Played, Stage
from tests.faults.scale import SCALE, some
from tests.oracle.files import refused_but_there
from tests.oracle.verdicts import Verdict

OURS = {
    "ReplicaUnwritable",
    "ReplicaBusy",
    "OutboxFull",
    "OutboxUnwritable",
    "OutboxBusy",
    "InboxUnwritable",
    "MasterUnwritable",
    "MasterBusy",
}
"""What a disk's refusal is called; none of them calls a sound file damaged."""

FAULTS = [("EIO", False), ("ENOSPC", True), ("EIO", True), ("ENOSPC", False)]
"""Every point gets all four when there is a night's time, else by turns the first two or the others."""

pytestmark = pytest.mark.skipif(bool(strace.missing()), reason=strace.missing() or "strace works")


class Trial:
    """One fault in one scene: what was said, what readers found meanwhile, and what is wrong."""

    def __init__(
        self, scene: Scene, stage: Stage, props: Props, point: Point, errno: str, *, lasting: bool, heal: bool = False
    ) -> None:
        options = point.fail(errno, lasting=lasting)
        self.problems: list[object] = []
        self.reads = self.lost = self.doubled = 0
        with props.directory(scene.begins) as directory:
            said: list[dict[str, Any]] = []

            def look() -> None:
                self.reads += 1
                try:
                    self._hold(scene.judge(directory, said), "a reader meanwhile")
                except sqlite3.Error as error:
                    self.problems.append(("a reader meanwhile", error.sqlite_errorname, str(error)))

            self.played = scene.play(stage, directory, strace=options, on_line=said.append, on_pause=look, heal=heal)
            self._check(self.played)
            self._hold(scene.judge(directory, said), "afterwards")
            # A sync that failed leaves written what it was to keep: only then may a refused entry be found later.
            if scene is UPSTREAM and point.call not in ("fsync", "fdatasync"):
                there = refused_but_there(directory, said, 1, ENTRIES)
                self.problems += [("refused, and there", sorted(there))] if there else []
            whole = scene.go_on(stage, directory)
            if whole.said[-1:] != [{"done": True}] or whole.all_of("error"):
                self.problems.append(("the healed disk", whole.said[-1:]))
            self._hold(scene.final(directory, said + whole.said), "in the end")

    def _check(self, played: Played) -> None:
        self.problems += played.all_of("raised")
        self.problems += [error for error in played.all_of("error") if error not in OURS]
        if played.code not in (0, 1):
            self.problems.append(("exit code", played.code))

    def _hold(self, verdict: Verdict, when: str) -> None:
        self.lost, self.doubled = self.lost + verdict.lost, self.doubled + verdict.doubled
        if not verdict.ok:
            self.problems.append((when, verdict))


@pytest.mark.parametrize("scene", SCENES, ids=lambda s: s.name)
def test_a_disk_that_refuses_any_call_costs_nothing_that_was_acknowledged(
    scene: Scene, stage: Stage, props: Props, record_property: Record
) -> None:
    found = some(points(calls_of(scene, stage, props, FAILED_AT), FAILED_AT), scene.name)
    failures, tried, reads, errors, lost, doubled = list[tuple[object, ...]](), 0, 0, 0, 0, 0
    for index, point in enumerate(found):
        for errno, lasting in FAULTS if SCALE > 1 else FAULTS[:2] if index % 2 == 0 else FAULTS[2:]:
            tried += 1
            trial = Trial(scene, stage, props, point, errno, lasting=lasting)
            reads, errors = reads + trial.reads, errors + bool(trial.played.all_of("error"))
            lost, doubled = lost + trial.lost, doubled + trial.doubled
            if trial.problems:
                failures.append((point, errno, "lasting" if lasting else "once", *trial.problems))
    counts = {"disk errors": tried, "told": errors, "reads meanwhile": reads, "lost": lost, "doubled": doubled}
    for name, count in counts.items():
        record_property(name, count)
    assert not failures, f"{len(failures)} of {tried}, some: {failures[:: max(1, len(failures) // 12)]}"
    assert errors, "no error was ever told: nothing was injected"


@pytest.mark.parametrize("scene", [UPSTREAM, MASTER], ids=lambda s: s.name)
def test_a_command_that_failed_works_when_it_is_typed_again_on_a_healed_disk(
    scene: Scene, stage: Stage, props: Props, record_property: Record
) -> None:
    """The same process goes on: no connection, cache or lock is left in a state that only a restart mends."""
    found = points(calls_of(scene, stage, props, FAILED_AT), FAILED_AT)
    failures, healed = list[tuple[object, ...]](), 0
    for point in found[:: 1 if SCALE > 1 else 3]:
        trial = Trial(scene, stage, props, point, "ENOSPC", lasting=True, heal=True)
        if trial.reads:
            healed += 1
            if trial.played.said[-1:] != [{"done": True}]:
                trial.problems.append(trial.played.said[-2:])
        if trial.problems:
            failures.append((point, *trial.problems))
    record_property("healed while running", healed)
    assert not failures, f"{len(failures)} of {len(found)}, some: {failures[:: max(1, len(failures) // 12)]}"
    assert healed


def test_control_an_acknowledgement_before_the_commit_is_seen_when_the_disk_refuses(stage: Stage, props: Props) -> None:
    for nth in range(1, 200, 5):
        with props.directory(UPSTREAM.begins) as directory:
            fault = Point("pwrite64", nth).fail("ENOSPC", lasting=True)
            played = UPSTREAM.play(stage, directory, strace=fault, ack_early=True)
            if UPSTREAM.judge(directory, played.said).lost:
                return
    pytest.fail("nothing was lost at any point: the oracle sees nothing")
