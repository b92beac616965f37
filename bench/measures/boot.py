"""Bootstrap and idling: an empty store comes up from the broker alone, then waits for something to happen."""

from __future__ import annotations

import time

from bench.limits import bootstrap, rows_of
from bench.measures.site import Site
from bench.report import Figure, at_most, middle, told
from testbed.feeds import Grocery

STREAMS = ("product/all", "price/all")
MIB = 1024 * 1024


def measure(grocery: Grocery, runs: int, target: float, *, peaks: bool) -> list[Figure]:
    """
    From process start to live with search ready, with HQ switched off, against what SQLite alone needs.

    Args:
        peaks: whether the memory of the store and of `hq run` (over import and publication) is judged.
    """
    count = len(grocery.products)
    with Site() as site:
        site.start_hq()
        site.import_all(grocery)
        heads = site.wait_all_published()
        hq = site.stop_hq()
        rows = rows_of(site.master_path, STREAMS)
        limits, taken, cpu, peak = [], [], [], []
        for run in range(runs):
            limits.append(bootstrap(rows))
            store = site.new_store(f"store-{run}")
            taken.append(store.live_after_s(heads))
            used = store.stop_well()
            cpu.append(used.cpu_s)
            peak.append(used.peak_bytes / MIB)
    ratio = middle([limit.total_s / s for limit, s in zip(limits, taken, strict=True)])
    name = f"bootstrap, {count:,} products and prices"
    parts = (middle(part) for part in zip(*((w.insert_s, w.search_s, w.interpreter_s) for w in limits), strict=True))
    limit = "insert {:.2f} FTS5 {:.2f} python {:.2f} s".format(*parts)
    found = [
        Figure(name, middle(taken), "s", limit, ratio, target, True),
        told(f"bootstrap of {count:,}: CPU time of the store", middle(cpu), "s"),
    ]
    judged = [("store", max(peak), 150.0), ("hq run", hq.peak_bytes / MIB, 200.0)]
    for who, mib, most in judged:
        title = f"bootstrap of {count:,}: peak memory of {who}"
        found.append(at_most(title, mib, "MiB", most) if peaks else told(title, mib, "MiB"))
    return found


def idle(grocery: Grocery, seconds: float) -> list[Figure]:
    """CPU and memory of `storenode run` and `hq run` while both are live and nothing changes."""
    with Site() as site:
        hq = site.start_hq()
        site.import_all(grocery)
        heads = site.wait_all_published()
        store = site.new_store("store")
        store.live_after_s(heads)
        store.wait_proven()

        processes = {"storenode run": store, "hq run": hq}
        before = {name: process.usage().cpu_s for name, process in processes.items()}
        began = time.perf_counter()
        time.sleep(seconds)
        after = {name: process.usage() for name, process in processes.items()}
        taken_s = time.perf_counter() - began
    found = []
    for name, used in after.items():
        percent = 100 * (used.cpu_s - before[name]) / taken_s
        found += [
            at_most(f"idle {seconds:g} s: CPU of {name}", percent, "% of a core", 1.0),
            at_most(f"idle: memory of {name}", used.rss_bytes / MIB, "MiB", 60.0),
        ]
    return found
