"""`hq import`: a first feed against raw inserts of what it makes, and the same feed once more."""

from __future__ import annotations

import time

from bench.limits import master_s
from bench.measures.site import Site
from bench.report import Figure, middle, told
from testbed.feeds import Grocery, write_products
from testbed.process import StepFailed


def measure(grocery: Grocery, runs: int) -> list[Figure]:
    """Rates by the command's own `seconds`; whole processes beside them, without a target."""
    count = len(grocery.products)
    first, again, limits, whole, whole_again = [], [], [], [], []
    for _ in range(runs):
        with Site() as site:
            feed = site.directory / "feed.csv"
            write_products(feed, grocery)
            began = time.perf_counter()
            facts = site.hq_json("import", "product", str(feed))
            whole.append(time.perf_counter() - began)
            _check(facts["events"], count)
            first.append(facts["seconds"])
            limits.append(master_s(site.master_path))
            began = time.perf_counter()
            facts = site.hq_json("import", "product", str(feed))
            whole_again.append(time.perf_counter() - began)
            _check(facts["events"], 0)
            again.append(facts["seconds"])
    ratio = middle([limit / s for limit, s in zip(limits, first, strict=True)])
    rate = count / middle(again)
    name = f"import of {count:,} products"
    return [
        Figure(name, count / middle(first), "rows/s", f"raw {count / middle(limits):,.0f} rows/s", ratio, 0.40, True),
        told(f"{name}: whole process", middle(whole), "s"),
        Figure(f"{name}, unchanged", rate, "rows/s", "-", rate, 200_000, True),
        told(f"{name}, unchanged: whole process", middle(whole_again), "s"),
    ]


def _check(events: int, expected: int) -> None:
    if events != expected:
        raise StepFailed(f"hq import made {events} events, {expected} were to be expected")
