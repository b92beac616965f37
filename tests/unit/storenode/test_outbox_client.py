"""The library for writing: entries and overrides of this store, without a daemon."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.rows import row_hash, to_hex
from storelink.contract.streams import Stream
from storenode import BadArgument, NotFound, Outbox, OutboxFull, documents, open_catalog
from storenode.outbox_client import outbox_entries
from storenode.replica.writer import Replica

LINE: Row = (1, "4011", "regular", "EUR", "[[1700000000,null,199]]")


@pytest.fixture
def replica(tmp_path: Path) -> Path:
    replica = Replica.open(tmp_path / "replica.db", ("all",), BUILT_IN)
    now_ms = time.time_ns() // 1_000_000
    replica.apply(
        Stream.parse("price/all", BUILT_IN),
        epoch="019b76da1000-5f3c9a01",
        position=1,
        digest=to_hex(row_hash(LINE)),
        head_seq=1,
        batches=[([LINE], [])],
        replace=False,
        wall_ms=now_ms,
    )
    replica.heartbeat(store_id="store-7", pid=None, connected=False, started_at_ms=0, counters={}, wall_ms=now_ms)
    return replica.path


def test_an_entry_is_numbered_and_waits_for_hq(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with Outbox(path) as outbox:
        assert outbox.status()["pending"] == 0
        assert not path.exists(), "it is made with the first entry"
        assert [outbox.append("sale.total", {"till": n}) for n in (1, 2)] == [1, 2]
        accepted = outbox.append_json("sale.total", "1.50")
        assert outbox.status()["pending"] == 3
    assert dict.fromkeys(accepted) == dict.fromkeys(documents.AcceptedEntry.__annotations__)
    listing = outbox_entries(path, 2)
    assert (listing["epoch"], listing["pending"]) == (accepted["epoch"], 3)
    assert [(entry["seq"], entry["data"]) for entry in listing["entries"]] == [(1, {"till": 1}), (2, {"till": 2})]


def test_what_is_refused_is_not_there(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", max_bytes=150_000) as outbox:
        with pytest.raises(BadArgument):
            outbox.append("no type", 1)
        with pytest.raises(BadArgument):
            outbox.append("sale.total", object())
        with pytest.raises(OutboxFull):
            for _ in range(2):
                outbox.append("sale.total", "x" * 60_000)
        assert outbox.status()["pending"] == 1
    with pytest.raises(RuntimeError, match="with"):
        outbox.append("sale.total", 1)


def test_an_override_is_what_readers_see_also_without_a_daemon(replica: Path, tmp_path: Path) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    with Outbox(tmp_path / "outbox.db", replica=replica) as outbox, open_catalog(replica) as catalog:
        done = outbox.set_override("4011", "1.49", until=until, reason="ripe")
        assert dict.fromkeys(done) == dict.fromkeys(documents.ChangedOverride.__annotations__)
        assert (done["amount_minor"], done["currency"], done["effective"]) == (149, "EUR", True)
        assert done["ends_at"] == until.isoformat().replace("+00:00", "Z")
        found = catalog.price("4011")
        assert found is not None
        assert (found["amount_minor"], found["kind"], found["scope"]) == (149, "override", "store-7")
        (listed,) = outbox.overrides()
        assert dict.fromkeys(listed) == dict.fromkeys(documents.OverrideInForce.__annotations__)
        assert (listed["sku"], listed["told"]) == ("4011", False)
        assert outbox.withdraw_override("4011")["effective"]
        assert outbox.overrides() == []
        found = catalog.price("4011")
        assert found is not None
        assert found["amount_minor"] == 199


def test_an_override_that_cannot_be_is_refused_and_makes_nothing(replica: Path, tmp_path: Path) -> None:
    path, later = tmp_path / "outbox.db", datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    with Outbox(path) as outbox, pytest.raises(BadArgument, match="overrides need the replica"):
        outbox.set_override("4011", "1.49", until=later, reason="ripe")
    with Outbox(path, replica=replica) as outbox:
        with pytest.raises(NotFound):
            outbox.set_override("9", "1.49", until=later, reason="ripe")
        with pytest.raises(BadArgument):
            outbox.set_override("4011", "1.499", until=later, reason="ripe")
        with pytest.raises(BadArgument):
            outbox.set_override("4011", "1.49", until=later.replace(tzinfo=None), reason="ripe")
        with pytest.raises(BadArgument):
            outbox.set_override("4011", "1.49", until=later, reason="ripe", currency="USD")
    assert not path.exists()


def test_an_override_of_an_unknown_sku_may_be_forced(replica: Path, tmp_path: Path) -> None:
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    with Outbox(tmp_path / "outbox.db", replica=replica) as outbox, closing(open_catalog(replica)) as catalog:
        outbox.set_override("9", "2", until=later, reason="new", currency="EUR", force=True)
        found = catalog.price("9")
        assert found is not None
        assert found["amount_minor"] == 200
