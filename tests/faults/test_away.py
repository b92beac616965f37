"""A month away: 200,000 changes over 30,000 entities while a store is off, then it comes back with HQ switched off."""

from __future__ import annotations

import random
import time

import pytest

from hq.master.store import Master
from storelink.contract.contexts import BUILT_IN
from testbed.process import until
from tests.faults.chaos import PRICE, Site, figures, prices
from tests.faults.scale import SEED
from tests.oracle.prices import read_replica

ENTITIES = 30_000
CHANGES = 200_000
SET = 10_000
BACK_S = 60.0


def a_month(site: Site, changes: int, seed: int) -> None:
    """Commit change sets, published as they come; every set deletes some and brings some back."""
    rng = random.Random(seed)
    with Master(site.directory / "hq.db", BUILT_IN) as master:
        number = 0
        while site.model.head < changes:
            number += 1
            some = rng.sample(range(ENTITIES), min(SET, changes - site.model.head))
            amounts: dict[str, int | None] = {f"away-{n}": number * 100_000 + rng.randrange(100_000) for n in some}
            amounts |= dict.fromkeys(list(amounts)[: len(some) // 20])
            with master.writing():
                now_ms = time.time_ns() // 1_000_000
                done = master.commit(PRICE, prices(amounts), now_ms, master.live_rows(PRICE))
            assert done.events == site.model.ask_for(amounts)


def test_a_store_that_was_away_for_a_month_is_level_from_the_broker_alone(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    """The control beside it loses one segment of its catch-up: rows and digest must tell."""
    site.hq_run.start()
    a_month(site, ENTITIES, SEED)
    stores = {"s": site.open_store("s"), "careless": site.open_store("careless")}
    for name, store in stores.items():
        site.wait_clean(name, BACK_S)
        store.stop()
    before = read_replica(site.replica("s"))
    a_month(site, ENTITIES + CHANGES, SEED + 1)
    until(lambda: all(s["published"] == s["head_seq"] for s in site.master().values()), "all is published", BACK_S)
    facts = site.master()["price/all"]
    site.hq_run.stop()
    assert read_replica(site.replica("s")) == before, "the store was off"
    bytes_before = site.lines["s"].bytes_down
    stores["s"].start()
    back_s = site.wait_clean("s", BACK_S)
    assert site.equal("s")
    site.open_store("careless", sabotage="segment_lost")
    until(lambda: position(site, "careless") == site.model.head, "the control thinks itself level", BACK_S)
    assert not site.verdict("careless").ok
    assert not site.equal("careless")
    figures(
        capfd,
        f"away: {CHANGES} changes over {ENTITIES} entities while the store was off; level {back_s:.1f} s after its"
        f" start with HQ off, digest equal, {(site.lines['s'].bytes_down - bytes_before) / 1e6:.1f} MB of"
        f" {facts['retained_bytes'] / 1e6:.1f} MB in {facts['segments']} segments",
    )


def position(site: Site, name: str) -> int:
    found = read_replica(site.replica(name))
    return found.position if found else 0
