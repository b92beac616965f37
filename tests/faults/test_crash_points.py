"""SIGKILL before every system call that changes a disk, makes a file or acknowledges something; then once more."""

from __future__ import annotations

import pytest

from testbed import strace
from testbed.strace import KILLED_AT, points
from tests.faults.acts.scenes import MASTER, SCENES, UPSTREAM, Props, Record, Scene, calls_of
from tests.faults.acts.stage import Stage
from tests.faults.scale import scaled, seeded, some

KILLED = -9
PAIRS = scaled(10)
"""Of each scene."""

pytestmark = pytest.mark.skipif(bool(strace.missing()), reason=strace.missing() or "strace works")


@pytest.mark.parametrize("scene", SCENES, ids=lambda s: s.name)
def test_a_kill_at_any_call_loses_nothing_and_is_recovered_from(
    scene: Scene, stage: Stage, props: Props, record_property: Record
) -> None:
    found = some(points(calls_of(scene, stage, props, KILLED_AT), KILLED_AT), scene.name)
    lost = doubled = 0
    failures = []
    for point in found:
        with props.directory(scene.begins) as directory:
            cut = scene.play(stage, directory, strace=point.kill())
            assert cut.code == KILLED, f"{point} was not reached: {cut.said[-1:]}"
            after = scene.judge(directory, cut.said)
            whole = scene.go_on(stage, directory)
            final = scene.final(directory, cut.said + whole.said)
            lost, doubled = lost + after.lost + final.lost, doubled + after.doubled + final.doubled
            if not after.ok or not final.ok or whole.said[-1:] != [{"done": True}]:
                failures.append((point, after, final, whole.said[-1:]))
    for name, count in (("kill points", len(found)), ("lost", lost), ("doubled", doubled)):
        record_property(name, count)
    assert not failures, f"{len(failures)} of {len(found)}, the first: {failures[0]}"


@pytest.mark.parametrize("scene", SCENES, ids=lambda s: s.name)
def test_a_second_kill_while_recovering_loses_nothing_either(
    scene: Scene, stage: Stage, props: Props, record_property: Record
) -> None:
    """A failing pair names both points; they are the same in every run with one seed."""
    found = points(calls_of(scene, stage, props, KILLED_AT), KILLED_AT)
    rng, pairs, lost, doubled = seeded(scene.name), 0, 0, 0
    failures = []
    for _ in range(5 * PAIRS):
        if pairs == PAIRS:
            break
        first, second = rng.choice(found), rng.choice(found)
        with props.directory(scene.begins) as directory:
            said = scene.play(stage, directory, strace=first.kill()).said
            again = scene.go_on(stage, directory, strace=second.kill())
            if again.code != KILLED:
                continue
            pairs += 1
            said += again.said
            after = scene.judge(directory, said)
            whole = scene.go_on(stage, directory, **({"life": 3} if scene is UPSTREAM else {}))
            final = scene.final(directory, said + whole.said)
            lost, doubled = lost + after.lost + final.lost, doubled + after.doubled + final.doubled
            if not after.ok or not final.ok or whole.said[-1:] != [{"done": True}]:
                failures.append((first, second, after, final, whole.said[-1:]))
    for name, count in (("kill pairs", pairs), ("lost", lost), ("doubled", doubled)):
        record_property(name, count)
    assert not failures, f"{len(failures)} of {pairs}, the first: {failures[0]}"
    assert pairs


@pytest.mark.parametrize("scene", [UPSTREAM, MASTER], ids=lambda s: s.name)
def test_control_an_acknowledgement_before_the_commit_is_seen_as_a_loss(
    scene: Scene, stage: Stage, props: Props
) -> None:
    """The planted fault: done is said first, then it is done."""
    for point in points(calls_of(scene, stage, props, ("pwrite64",)), ("pwrite64",)):
        with props.directory(scene.begins) as directory:
            cut = scene.play(stage, directory, strace=point.kill(), ack_early=True)
            if scene.judge(directory, cut.said).lost:
                return
    pytest.fail("nothing was lost at any point: the oracle sees nothing")
