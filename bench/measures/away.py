"""A store that was away: prices changed many times over meanwhile, and HQ is switched off when it comes back."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass

from bench.measures.rows import ROOT
from bench.measures.site import WAIT_S, Heads, Site, Store
from bench.report import Figure, middle, told
from hq.master.store import Master
from storelink.contract.contexts import BUILT_IN
from storelink.contract.messages import Segment, encode_segment
from storelink.contract.streams import Stream
from testbed.feeds import Grocery, Prices
from testbed.process import StepFailed, environment

PRICES = Stream.parse("price/all", BUILT_IN)
ROWS_PER_SEGMENT = 15_000
CHANGES_EACH = 1_000
SEED = 7


@dataclass(frozen=True, slots=True)
class _Away:
    """The stopped store and what it has missed: `minimal_bytes` is the changed rows alone, freshly sealed."""

    store: Store
    heads: Heads
    minimal_bytes: int
    commit_s: float
    publish_s: float


def measure(grocery: Grocery, changes: int, skus: int, runs: int) -> list[Figure]:
    """Time and bytes of a catch-up after `changes` price changes of `skus` products.

    Only `price/all` is followed on both sides. The limit is an empty store's bootstrap from an HQ that has
    exactly `skus` prices.
    """
    touched = {sku: grocery.prices[sku] for sku in random.Random(SEED).sample(sorted(grocery.prices), skus)}
    with Site() as site, Site() as small:
        heads = _publish(small, touched)
        away = _leave(site, grocery, touched, changes)
        caught_up, booted, started, sizes = [], [], [], []
        for run in range(runs):
            empty = small.new_store(f"empty-{run}", str(PRICES))
            booted.append(empty.live_after_s(heads))
            empty.stop_well()
            back = site.new_store(f"back-{run}", str(PRICES))
            back.resemble(away.store)
            caught_up.append(back.live_after_s(away.heads))
            back.stop_well()
            sizes.append(back.counters()["bytes"])
            started.append(back.live_after_s(away.heads))
            back.stop_well()
    ratio = middle([c / b for c, b in zip(caught_up, booted, strict=True)])
    name = f"catch-up, {changes:,} changes of {skus:,} prices"
    limit = f"bootstrap of {skus:,}: {middle(booted):.2f} s"
    kb, minimal = middle(sizes) / 1000, away.minimal_bytes / 1000
    return [
        Figure(name, middle(caught_up), "s", limit, ratio, 1.5, False),
        Figure("catch-up: bytes", kb, "kB", f"alone: {minimal:,.0f} kB", kb / minimal, 2.0, False),
        told("catch-up: the same start with nothing missed", middle(started), "s"),
        told("catch-up: committed meanwhile", changes / away.commit_s, "changes/s"),
        told("catch-up: published after the last commit", away.publish_s, "s"),
    ]


def _publish(site: Site, prices: Prices) -> Heads:
    """Let the broker have the prices; HQ is switched off afterwards."""
    site.start_hq()
    site.import_all(Grocery([], prices))
    heads = site.wait_all_published()
    site.stop_hq()
    return heads


def _leave(site: Site, grocery: Grocery, touched: Prices, changes: int) -> _Away:
    """Bootstrap a store, stop it, and change prices while `hq run` publishes and compacts."""
    site.start_hq()
    site.import_all(Grocery([], grocery.prices))
    before = site.wait_all_published()
    store = site.new_store("away", str(PRICES))
    store.live_after_s(before)
    store.stop_well()
    skus = site.directory / "skus.json"
    skus.write_text(json.dumps(touched), encoding="ascii")
    began = time.perf_counter()
    churn = [sys.executable, "-m", "bench.measures.churn"]
    subprocess.run(
        [*churn, str(site.master_path), str(skus), str(changes), str(CHANGES_EACH)],
        env=environment({}),
        timeout=WAIT_S,
        check=True,
    )
    commit_s = time.perf_counter() - began
    heads = site.wait_all_published()
    publish_s = time.perf_counter() - began - commit_s
    site.stop_hq()
    if heads[str(PRICES)] != before[str(PRICES)] + changes:
        raise StepFailed(f"{heads[str(PRICES)] - before[str(PRICES)]} of {changes} changes were made")
    minimal = _minimal_bytes(site, before[str(PRICES)], heads[str(PRICES)])
    return _Away(store, heads, minimal, commit_s, publish_s)


def _minimal_bytes(site: Site, position: int, head_seq: int) -> int:
    with Master(site.master_path, BUILT_IN) as master:
        stream = master.stream(PRICES)
        assert stream is not None
        rows, _ = master.rows_between(PRICES, position + 1, head_seq)
    total = 0
    for start in range(0, len(rows), ROWS_PER_SEGMENT):
        segment = Segment(PRICES, stream.epoch, position + 1, head_seq, rows[start : start + ROWS_PER_SEGMENT], [])
        total += len(encode_segment(ROOT, segment, 0).payload)
    return total
