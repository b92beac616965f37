"""A desk at its pace: `python -m bench.measures.committer MASTER SKUS SETS_PER_S SECONDS CHANGES_EACH`.

Commits change sets of prices, each durable, at fixed times, and prints for each one HQ's newest seq and the monotonic
nanoseconds at which its commit had returned. A set that is late does not move those behind it; what is not begun after
SECONDS is left out. Every change is one: it fails if HQ finds a price as it was.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from hq.core.changes import Change
from hq.master.store import Master
from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream
from testbed.feeds import CURRENCY

STREAM = Stream.parse("price/all", BUILT_IN)


def main(master_path: Path, skus: Path, sets_per_s: float, seconds: float, changes_each: int) -> None:
    names: list[str] = json.loads(skus.read_text(encoding="ascii"))
    told = []
    with Master(master_path, BUILT_IN) as master:
        before = master.stream(STREAM)
        assert before is not None
        # Above what any earlier run wrote: each of its sets raised the seq by one or more.
        lowest = 10_000_000 + before.head_seq
        began_s = time.monotonic()
        for index in range(int(sets_per_s * seconds)):
            time.sleep(max(0.0, began_s + index / sets_per_s - time.monotonic()))
            if time.monotonic() - began_s > seconds:
                break
            start = index * changes_each
            some = [names[(start + n) % len(names)] for n in range(changes_each)]
            schedule = f"[[1764000000,null,{lowest + index}]]"
            done = master.commit(STREAM, [Change((sku, "regular"), (CURRENCY, schedule)) for sku in some], 1)
            if done.events != changes_each:
                raise SystemExit(f"set {index}: {done.events} of {changes_each} prices changed")
            told.append((done.head_seq, time.monotonic_ns()))
    for head_seq, at_ns in told:
        print(head_seq, at_ns)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
