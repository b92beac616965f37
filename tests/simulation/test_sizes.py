"""Feeds whose messages compress to next to nothing reach a new store and one that follows; sizes as HQ has them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hq.core.changes import Change
from hq.core.feed_diff import FeedRow, diff
from hq.master.store import Master
from hq.publish.sizes import Sizes
from storelink.contract.contexts import BUILT_IN
from storelink.contract.limits import BODY_BYTES_MAX
from storelink.contract.times import rfc3339
from storelink.transport.memory import MemoryBroker
from tests.simulation.world import EPOCH_MS, PRICE, PRODUCT, Hq, Store


class Chain:
    """One HQ with the sizes that it really has, and stores, on a link in memory without faults."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.now_ms = directory, 0
        self.broker = MemoryBroker(random.Random(1))
        self.desk = Master(directory / "hq.db", BUILT_IN, lambda: 1)
        self.desk.create(EPOCH_MS)
        self.hq = Hq(self.broker, directory, 0, Sizes())
        self.stores: list[Store] = []

    def add_store(self, name: str) -> Store:
        self.stores.append(Store(self.broker, self.directory, name, 0))
        return self.stores[-1]

    def run(self, until_ms: int) -> None:
        while self.now_ms < until_ms:
            self.now_ms += 250
            self.broker.advance(self.now_ms)
            self.hq.turn(self.now_ms)
            for store in self.stores:
                store.turn(self.now_ms)

    def feed(self, rows: Sequence[dict[str, str | None]]) -> int:
        """Import prices of the skus 0, 1, 2, ..., as `hq import` does; returns how many events that made."""
        now_ms = EPOCH_MS + self.now_ms
        lines = [FeedRow(n, {"sku": str(n), "currency": "EUR", **row}) for n, row in enumerate(rows)]
        with self.desk.writing():
            live = self.desk.live_rows(PRICE)
            found = diff(PRICE.context, "feed", lines, live, now_ms // 1000, full=False)
            return self.desk.commit(PRICE, found.changes, now_ms, live).events

    def check_level(self) -> None:
        """Every store has HQ's rows, and never refused a message."""
        for store in self.stores:
            for row in self.desk.streams():
                assert store.positions()[row.stream] == (row.epoch, row.head_seq, None)
                assert store.rows(row.stream) == self.desk.live_rows(row.stream)
            assert {name: n for name, n in store.worker.counters.items() if name.startswith("rejected")} == {}

    def close(self) -> None:
        for store in self.stores:
            store.crash()
        self.hq.crash()
        self.desk.close()


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    found = Chain(tmp_path)
    yield found
    found.close()


def test_4000_products_of_80_times_the_same_sentence_arrive(chain: Chain) -> None:
    """
    They never did: HQ cut messages by their size as they travel, and these are 16 MB within 60 kB. Every store
    refused what unfolds beyond 4 MiB, and a new one was bootstrapping for ever.
    """
    chain.add_store("follows")
    chain.run(3_000)
    said = ("Ripe bananas from the hills of Ecuador. " * 80)[:4_000]
    rest = (None,) * 9
    changes = [Change((str(sku),), (None, f"Bananas {sku}", said, *rest)) for sku in range(4_000)]
    chain.desk.commit(PRODUCT, changes, EPOCH_MS + chain.now_ms)
    chain.run(15_000)
    chain.add_store("new")
    chain.run(30_000)
    chain.check_level()
    follows = chain.stores[0].worker.counters
    assert (follows["catch_ups"], follows["gaps"]) == (2, 0), "one a stream at the start; live batches brought the rest"


def test_30_price_feeds_of_3000_rows_within_five_minutes_arrive(chain: Chain) -> None:
    """
    What is over is kept for 300 s, so each feed makes every schedule longer, by steps that all rows have in common:
    small as they travel, beyond 4 MiB before compression. A store got stuck 47,496 events behind.
    """
    chain.add_store("follows")
    chain.run(3_000)
    chain.feed([{"amount": "9.99"}] * 3_000)
    for feed in range(30):
        starts, ends = (rfc3339(EPOCH_MS + chain.now_ms + at_ms) for at_ms in (0, 3_000))
        rows: list[dict[str, str | None]] = [
            {"amount": f"{n % 3 + 1}.{feed:02}", "starts_at": starts, "ends_at": ends} for n in range(3_000)
        ]
        assert chain.feed(rows) == 3_000
        chain.run(chain.now_ms + 7_000)
    longest = max(len(str(row)) for row in chain.desk.live_rows(PRICE).values())
    assert longest * 3_000 > BODY_BYTES_MAX, "the control: a feed that one message could hold shows nothing"
    chain.add_store("new")
    chain.run(chain.now_ms + 10_000)
    chain.check_level()
    assert chain.stores[0].worker.counters["gaps"] == 0
