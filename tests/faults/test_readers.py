"""Tills of another user, without write access, reading through everything that happens to a replica.

Every import sets all prices to one number, so a read that sees two numbers saw half of a change set. The readers are
processes of plain Python and sqlite3 that know nothing of us, in the daemon's group; the directory is 0750.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from hq.master.store import Master
from storelink.contract.contexts import BUILT_IN
from testbed.process import until
from tests.faults.chaos import PRICE, Site, figures
from tests.faults.scale import SEED, scaled

READERS = 4
READS = max(scaled(50_000), 20_000)
"""With fewer they end before every disturbance has come."""

ROWS = 1_000
DISTURBANCES = ("kill -9", "clean stops", "rebuilds")
DAEMON_ID, TILL_ID, GROUP_ID = 54_321, 54_322, 54_323
"""Nobody's numbers: the daemon's user, the tills', and the group that both are in."""

TILL = Path(__file__).parent / "acts" / "till.py"


@pytest.fixture
def site() -> Iterator[Site]:
    if os.getuid() != 0:
        pytest.skip("reading as another user needs root")
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv (util-linux) is not installed: no daemon of another user")
    # Not under pytest's own directory: nobody but its owner may pass through that one.
    with tempfile.TemporaryDirectory(prefix="torture-readers-") as directory:
        Path(directory).chmod(0o755)
        found = Site(Path(directory))
        yield found
        found.close()


def as_deployed(site: Site, sabotage: str | None = None) -> None:
    """Start the store as its unit does: a user of its own, StateDirectoryMode=0750, UMask=0027."""
    place = site.replica("s").parent
    place.mkdir(exist_ok=True)
    os.chown(place, DAEMON_ID, GROUP_ID)
    place.chmod(0o750)
    user = ["setpriv", f"--reuid={DAEMON_ID}", f"--regid={GROUP_ID}", "--clear-groups"]
    site.open_store("s", sabotage=sabotage, wrap=["sh", "-c", 'umask 0027; exec "$@"', "sh", *user])


class Tills:
    """The reader processes; `end` returns what they counted."""

    def __init__(self, site: Site, count: int, reads: int) -> None:
        python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
        script = site.directory / "till.py"
        script.write_text(TILL.read_text())
        script.chmod(0o644)
        self._processes = [
            subprocess.Popen(
                [python, str(script), str(site.replica("s")), str(ROWS), str(reads), str(SEED + n)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd="/",
                user=TILL_ID,
                group=GROUP_ID,
                extra_groups=[],
            )
            for n in range(count)
        ]

    @property
    def running(self) -> bool:
        return any(p.poll() is None for p in self._processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    def end(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for process in self._processes:
            out, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
            found: dict[str, Any] = json.loads(out)
            total.update(found)
        return total


def import_all(site: Site, number: int) -> None:
    site.desk({f"{n:04}": number for n in range(ROWS)})


def disturb(site: Site, rng: random.Random, done: Counter[str], started_at: dict[Path, int]) -> None:
    """Kill the daemon, stop it, or make HQ begin a new epoch, on which it rebuilds."""
    store = site.stores["s"]
    match sum(done[what] for what in DISTURBANCES) % len(DISTURBANCES):
        case 0:
            store.stop(signal.SIGKILL)
            done["kill -9"] += 1
        case 1:
            started = started_at.get(store.log, 0)
            until(lambda: b"store.started" in store.log.read_bytes()[started:], "the store has started")
            assert store.stop() == 0
            done["clean stops"] += 1
        case _:
            with Master(site.directory / "hq.db", BUILT_IN) as master:
                master.new_epoch(PRICE, time.time_ns() // 1_000_000)
            done["rebuilds"] += 1
    time.sleep(rng.uniform(0.1, 0.4))
    if not store.running:
        started_at[store.log] = store.log.stat().st_size
        store.start()


def test_tills_of_another_user_never_see_an_error_or_half_a_change_set(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    rng, number = random.Random(SEED), 1  # also how long each phase lasts is random, not awaited
    site.hq_run.start()
    import_all(site, number)
    as_deployed(site)
    site.wait_clean("s", 40.0)
    done, started_at = Counter[str](), dict[Path, int]()
    with Tills(site, READERS, READS) as tills:
        while tills.running:
            for _ in range(rng.randrange(2, 6)):
                number += 1
                import_all(site, number)
                done["imports"] += 1
                time.sleep(rng.uniform(0.02, 0.15))
            disturb(site, rng, done, started_at)
            if rng.random() < 0.5:
                site.wait_clean("s", 40.0)
        found = tills.end()
    site.wait_clean("s", 40.0)
    assert {k: n for k, n in found.items() if k.startswith("error")} == {}
    assert (found["torn"], found["backwards"]) == (0, 0)
    assert found["reads"] == READERS * READS
    assert min(done[what] for what in DISTURBANCES) > 0
    figures(
        capfd,
        f"readers: {found['reads']} reads by {READERS} tills of another user over {found['states']} states seen,"
        f" through {', '.join(f'{n} {what}' for what, n in sorted(done.items()))}; 0 errors, 0 torn, 0 backwards",
    )


def test_control_a_store_that_commits_in_the_middle_of_a_change_set_is_caught(site: Site) -> None:
    site.hq_run.start()
    import_all(site, 1)
    as_deployed(site, sabotage="torn_apply")
    until(lambda: site.verdict("s").ok, "the store is filled")
    number = 1
    with Tills(site, 2, 4_000) as tills:
        while tills.running:
            number += 1
            import_all(site, number)
            site.wait_clean("s", 40.0)
        assert tills.end()["torn"] > 0
