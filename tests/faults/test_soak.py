"""A soak at 100 changes/s with a fault every few seconds: descriptors and memory stay flat, all is equal in the end."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

import pytest

from testbed.process import Process, until
from tests.faults.chaos import Load, Site, Traffic, connected, figures
from tests.faults.scale import SCALE, SEED

FAULT_EVERY_S = 20.0
FAULT_S = 3.0
WARM_UP_S = 15.0
SOAK_S = max(180.0 * SCALE, 3 * WARM_UP_S)
CONTROL_S = 12.0
GROWTH_BYTES_MAX = 6 * 1024 * 1024
"""Between the first and the last third, by their medians; allocators keep some of what a burst took."""

GROWTH_DESCRIPTORS_MAX = 2


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process holds at one moment."""

    rss_bytes: int
    descriptors: int


def sample(process: Process) -> Sample:
    used = process.usage()
    return Sample(used.rss_bytes, used.descriptors)


def growth(samples: list[Sample]) -> Sample:
    """By how much the last third's medians are above the first third's."""
    third = len(samples) // 3
    first, last = samples[:third], samples[-third:]
    return Sample(
        round(median(s.rss_bytes for s in last) - median(s.rss_bytes for s in first)),
        round(median(s.descriptors for s in last) - median(s.descriptors for s in first)),
    )


def is_flat(grown: Sample) -> bool:
    return grown.rss_bytes <= GROWTH_BYTES_MAX and grown.descriptors <= GROWTH_DESCRIPTORS_MAX


def faults(site: Site) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """What is done, and how it ends; none of them restarts a process that is measured."""
    line, broker, hq = site.lines["s"], site.broker, site.hq_run
    return {
        "line cut": (line.cut, line.heal),
        "hq run stopped": (lambda: hq.send(signal.SIGSTOP), lambda: hq.send(signal.SIGCONT)),
        "broker killed": (broker.kill, broker.start),
        "line frozen": (line.freeze, line.heal),
    }


def test_a_soak_with_faults_keeps_descriptors_and_memory_flat_and_ends_equal(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(SEED)
    site.hq_run.start()
    site.desk({f"load-{n}": n for n in range(1_000)})
    site.open_store("s")
    until(lambda: connected(site.replica("s")), "the store is connected")
    acts, done, taken = list(faults(site).items()), 0, {"hq run": list[Sample](), "storenode run": list[Sample]()}
    with ExitStack() as stack:
        loops = [stack.enter_context(loop) for loop in (Load(site, per_s=100), Traffic(site, "s", per_s=20))]
        began_s = time.monotonic()
        fault_s = began_s + WARM_UP_S
        while time.monotonic() - began_s < SOAK_S:
            if time.monotonic() >= fault_s:
                begin, end = acts[done % len(acts)][1]
                begin()
                time.sleep(rng.uniform(0.5, FAULT_S))  # how long a fault lasts is what is random here
                end()
                done, fault_s = done + 1, fault_s + FAULT_EVERY_S
            if time.monotonic() - began_s > WARM_UP_S:
                taken["hq run"].append(sample(site.hq_run))
                taken["storenode run"].append(sample(site.stores["s"]))
            time.sleep(0.25)
        for loop in loops:
            loop.hold()
        site.wait_clean("s", 30.0)
        site.wait_sent("s", 30.0)
    assert site.equal("s")
    assert site.inbox_verdict("s").ok
    assert site.hq("verify").returncode == 0
    grown = {name: growth(samples) for name, samples in taken.items()}
    assert all(is_flat(g) for g in grown.values()), grown
    told = "; ".join(
        f"{name} {g.rss_bytes / 1e6:+.1f} MB of {taken[name][-1].rss_bytes / 1e6:.0f}, {g.descriptors:+d} of"
        f" {taken[name][-1].descriptors} descriptors"
        for name, g in grown.items()
    )
    figures(
        capfd,
        f"soak: {SOAK_S:g} s at 100 changes/s and 20 entries/s, {done} faults; {told};"
        f" {site.model.head} changes, {len(site.accepted['s'])} entries, 0 lost, 0 double, digests equal",
    )


def test_control_a_store_that_leaks_is_caught(site: Site) -> None:
    site.hq_run.start()
    store = site.open_store("s", sabotage="leak")
    until(lambda: connected(site.replica("s")), "the store is connected")
    samples, began_s = [], time.monotonic()
    while time.monotonic() - began_s < CONTROL_S:
        samples.append(sample(store))
        time.sleep(0.25)
    grown = growth(samples)
    assert grown.rss_bytes > GROWTH_BYTES_MAX
    assert grown.descriptors > GROWTH_DESCRIPTORS_MAX
