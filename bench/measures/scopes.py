"""What one change costs, however many scopes there are: commits of one price with 2, some and many streams."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.report import Figure, middle, told
from hq.core.changes import Change
from hq.master.store import Master
from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream
from testbed.feeds import CURRENCY

FEW = 2
ROWS = 50
"""Prices of each stream."""

TARGET = 1.5


def measure(many: Sequence[int], commits: int) -> list[Figure]:
    """Each figure against the same commit with two streams, taken in turn with it."""
    with tempfile.TemporaryDirectory(prefix="storenode-bench-") as directory, ExitStack() as opened:
        counts = (FEW, *many)
        masters = [opened.enter_context(_master(Path(directory) / f"{count}.db", count)) for count in counts]
        taken: list[list[float]] = [[] for _ in counts]
        for index in range(commits):
            for count, master, times in zip(counts, masters, taken, strict=True):
                change = _change(0, 10_000 + index)
                stream = _stream(index % count)
                began = time.perf_counter()
                master.commit(stream, [change], 1)
                times.append(time.perf_counter() - began)
    few_s, *many_s = (middle(times) for times in taken)
    limit = f"with {FEW}: {few_s * 1000:.2f} ms"
    return [
        told(f"commit of one change, {FEW} streams, p50", few_s * 1000, "ms"),
        *(
            Figure(f"commit of one change, {count:,} streams, p50", s * 1000, "ms", limit, s / few_s, TARGET, False)
            for count, s in zip(many, many_s, strict=True)
        ),
    ]


@contextmanager
def _master(path: Path, streams: int) -> Iterator[Master]:
    Master.create(path, BUILT_IN, 1)
    with Master.open(path, BUILT_IN) as master:
        with master.writing():
            for index in range(streams):
                master.commit(_stream(index), [_change(sku, 100) for sku in range(ROWS)], 1)
        yield master


def _stream(index: int) -> Stream:
    return Stream.parse(f"price/store-{index:05}", BUILT_IN)


def _change(sku: int, minor: int) -> Change:
    return Change((f"{sku}", "regular"), (CURRENCY, f"[[1764000000,null,{minor}]]"))
