"""kill -9 of every process of ours at random moments under load: nothing lost, nothing double, level soon after.

The moments are random, not awaited: that is what is tested.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.process import BIN, Process, until
from tests.faults.chaos import ROOT, Load, Site, Traffic, figures
from tests.faults.scale import SEED, scaled
from tests.oracle.prices import amounts_at_hq

KILLS = scaled(100)
"""Of each of the three."""

CONTROL_ROUNDS_MAX = 20
IMPORTED = 2_000


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(**named: str) -> Site:
        made.append(Site(tmp_path, **named))
        return made[0]

    yield make
    for site in made:
        site.close()


class Imports:
    """`hq import` of all of IMPORTED prices to one number, killed around its commit; whole, or not there at all."""

    def __init__(self, site: Site, rng: random.Random) -> None:
        self._site, self._rng = site, rng
        self._number = 1
        self.whole = self.none = 0
        self._aim_s = self._import_all(None)

    def run_and_kill(self) -> None:
        self._number += 1
        before = self.whole
        self._import_all(self._rng.uniform(0.6, 1.2) * self._aim_s)
        # As many die before their commit as after it, however busy the machine is.
        self._aim_s *= 0.9 if self.whole > before else 1.1

    def _import_all(self, killed_after_s: float | None) -> float:
        rows = {f"import-{n}": self._number for n in range(IMPORTED)}
        file = self._site.directory / "import.csv"
        file.write_text("sku,amount,currency\n" + "".join(f"{sku},{n}.00,EUR\n" for sku, n in rows.items()))
        began_s = time.monotonic()
        process = subprocess.Popen(
            [str(BIN / "hq"), "import", "price", str(file)],
            env=self._site.hq_run.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )
        try:
            _, errors = process.communicate(timeout=killed_after_s)
            assert process.returncode == 0, errors
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        took_s = time.monotonic() - began_s
        amounts = amounts_at_hq(self._site.directory / "hq.db", "import-")
        assert len(amounts) == 1, f"an import that was killed is there by half: {amounts}"
        assert process.returncode or amounts == {self._number * 100}, "an import that ended well is not there"
        if amounts == {self._number * 100}:
            self.whole += 1
            self._site.model.ask_for({sku: n * 100 for sku, n in rows.items()})
        else:
            self.none += 1
        return took_s


def test_kill_9_of_daemon_hq_and_import_loses_nothing_and_doubles_nothing(
    make_site: Callable[..., Site], capfd: pytest.CaptureFixture[str]
) -> None:
    rng, site = random.Random(SEED), make_site()
    site.hq_run.start()
    store = site.open_store("s")
    until(lambda: site.outbox("s").exists(), "the outbox is made")
    kills = {"store": 0, "hq run": 0}
    imports = Imports(site, rng)
    with Load(site, per_s=200) as load, Traffic(site, "s") as traffic:
        for _ in range(KILLS):
            for name, victim in (("store", store), ("hq run", site.hq_run)):
                time.sleep(rng.uniform(0.0, 0.4))
                kill(victim)
                kills[name] += 1
            imports.run_and_kill()
        load.hold()
        traffic.hold()
        level_s = site.wait_clean("s")
        site.wait_sent("s")
    assert site.verdict("s").ok
    assert site.inbox_verdict("s").ok
    assert site.hq("verify").returncode == 0
    assert site.equal("s")
    assert KILLS < 20 or min(imports.whole, imports.none) > KILLS // 20, (
        "imports died before their commit, and after it"
    )
    figures(
        capfd,
        f"processes: kill -9 of the store's daemon {kills['store']}, of hq run {kills['hq run']}, of hq import"
        f" {imports.whole + imports.none} ({imports.none} left nothing, {imports.whole} were whole);"
        f" {site.model.head} changes, {len(site.accepted['s'])} entries, 0 lost, 0 double;"
        f" level {level_s:.1f} s after the last kill",
    )


def kill(victim: Process) -> None:
    victim.stop(signal.SIGKILL)
    victim.start()


@pytest.mark.parametrize(("sabotage", "fault"), [("dedup_off", "doubled"), ("ack_before_commit", "lost")])
def test_control_an_hq_that_is_sabotaged_is_caught(make_site: Callable[..., Site], sabotage: str, fault: str) -> None:
    """The same harness over an HQ that does not deduplicate, and one that acknowledges before it commits."""
    rng, site = random.Random(SEED), make_site(hq_sabotage=sabotage)
    site.hq_run.start()
    store = site.open_store("s")
    until(lambda: site.outbox("s").exists(), "the outbox is made")
    with Traffic(site, "s", per_s=100) as traffic:
        for _ in range(CONTROL_ROUNDS_MAX):
            time.sleep(rng.uniform(0.2, 0.6))
            kill(rng.choice((store, site.hq_run)))
            traffic.hold()
            site.wait_sent("s", 40.0)
            found = site.inbox_verdict("s")
            if getattr(found, fault):
                return
            traffic.go_on()
    pytest.fail(f"{sabotage} was not caught")
