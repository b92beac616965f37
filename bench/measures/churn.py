"""A process that changes prices at HQ: `python -m bench.measures.churn MASTER SKUS CHANGES CHANGES_EACH`.

SKUS is a JSON file of amounts by sku. Each change set takes random skus of it, and every change is one.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

from hq.core.changes import Change
from hq.master.store import Master
from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream
from testbed.feeds import CURRENCY

SEED = 3


def main(master_path: Path, skus: Path, changes: int, changes_each: int) -> None:
    """Commit `changes` price changes in sets of `changes_each`."""
    rng = random.Random(SEED)
    amounts: dict[str, int] = json.loads(skus.read_text(encoding="ascii"))
    names, stream = list(amounts), Stream.parse("price/all", BUILT_IN)
    with Master(master_path, BUILT_IN) as master:
        for _ in range(0, changes, changes_each):
            now_ms = time.time_ns() // 1_000_000
            made = []
            for sku in rng.sample(names, changes_each):
                amounts[sku] = max(amounts[sku], 20) + rng.choice((-10, 5, 10, 20))
                made.append(Change((sku, "regular"), (CURRENCY, f"[[{now_ms // 1000},null,{amounts[sku]}]]")))
            master.commit(stream, made, now_ms)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
