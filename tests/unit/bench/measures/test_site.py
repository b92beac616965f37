"""The bench must not take a store for live that is not, nor leave a process behind."""

from __future__ import annotations

from pathlib import Path

from bench.measures.site import is_live, search_ready
from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream
from storenode.replica.writer import Replica

PRICES, PRODUCTS = Stream.parse("price/all", BUILT_IN), Stream.parse("product/all", BUILT_IN)
PID = 4711


def _replica(path: Path) -> Replica:
    return Replica.open(path / "replica.db", ("price/all",), BUILT_IN)


def _arrive(replica: Replica, position: int, stream: Stream = PRICES) -> None:
    now_ms = 4_000_000_000_000  # never stale
    replica.apply(
        stream,
        epoch="0" * 12 + "-" + "1" * 8,
        position=position,
        digest="0" * 32,
        head_seq=position,
        batches=[],
        replace=False,
        wall_ms=now_ms,
    )


def _beat(replica: Replica, pid: int, *, connected: bool) -> None:
    replica.heartbeat(store_id="s", pid=pid, connected=connected, started_at_ms=0, counters={}, wall_ms=0)


def test_a_store_counts_as_live_only_at_hqs_head_by_its_own_connected_daemon(tmp_path: Path) -> None:
    replica = _replica(tmp_path)
    db = replica.connection
    found = []
    _arrive(replica, 7)
    for pid, connected, head_seq in ((1, True, 7), (PID, False, 7), (PID, True, 8), (PID, True, 7)):
        _beat(replica, pid, connected=connected)
        found.append(is_live(db, {"price/all": head_seq, "product/all": 9}, PID))
    assert found == [False, False, False, True]


def test_a_store_that_was_never_bootstrapped_is_not_live_at_an_empty_head(tmp_path: Path) -> None:
    replica = _replica(tmp_path)
    _beat(replica, PID, connected=True)
    assert not is_live(replica.connection, {"price/all": 0}, PID)


def test_search_is_ready_when_the_index_has_every_row(tmp_path: Path) -> None:
    replica = Replica.open(tmp_path / "replica.db", ("all",), BUILT_IN)
    found = [search_ready(replica.connection)]
    replica.feed_search()
    found.append(search_ready(replica.connection))
    _arrive(replica, 7, PRODUCTS)
    found.append(search_ready(replica.connection))
    assert found == [False, True, False]
