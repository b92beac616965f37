"""The library for reading: what it answers, and that it goes on answering whatever becomes of the replica's file."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.rows import row_hash, to_hex
from storelink.contract.streams import Stream
from storenode import BadArgument, Catalog, ReplicaDamaged, ReplicaMissing, documents, open_catalog
from storenode.api.schemas import SCHEMAS
from storenode.replica import queries
from storenode.replica.writer import Replica

PRICE, PRODUCT = Stream.parse("price/all", BUILT_IN), Stream.parse("product/all", BUILT_IN)
START = 1_700_000_000
MILK: Row = (1, "4011", "5012345678900", "Organic Milk", *(None,) * 9, '{"organic":true}')
LINES: list[Row] = [
    (1, "4011", "regular", "EUR", f"[[{START},null,199]]"),
    (2, "4011", "promotion", "EUR", f"[[{START},null,149]]"),
]
NOBODY = 65_534


def put(replica: Replica, stream: Stream, rows: list[Row]) -> None:
    position = max(int(str(row[0])) for row in rows)
    replica.apply(
        stream,
        epoch="019b76da1000-5f3c9a01",
        position=position,
        digest=to_hex(sum(map(row_hash, rows))),
        head_seq=position,
        batches=[(rows, [])],
        replace=False,
        wall_ms=time.time_ns() // 1_000_000,
    )


def made(path: Path, lines: list[Row] | None = None) -> Replica:
    replica = Replica.open(path, ("all",), BUILT_IN)
    put(replica, PRICE, LINES if lines is None else lines)
    put(replica, PRODUCT, [MILK])
    replica.feed_search()
    return replica


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    replica = made(tmp_path / "replica.db")
    yield replica
    replica.connection.close()


@pytest.fixture
def catalog(replica: Replica) -> Iterator[Catalog]:
    with open_catalog(replica.path) as catalog:
        yield catalog


def amount(catalog: Catalog) -> int | None:
    found = catalog.price("4011")
    return found and found["amount_minor"]


def test_it_answers_what_the_replica_says(catalog: Catalog) -> None:
    price = {
        "sku": "4011",
        "amount_minor": 149,
        "currency": "EUR",
        "kind": "promotion",
        "scope": "all",
        "starts_at": "2023-11-14T22:13:20Z",
        "ends_at": None,
    }
    assert catalog.price("4011") == price
    product = catalog.product("4011")
    assert product is not None
    assert (product["name"], product["attributes"], product["price"]) == ("Organic Milk", {"organic": True}, price)
    assert catalog.products_by_gtin("5012345678900") == [product]
    assert [found["sku"] for found in catalog.search("org mil")] == ["4011"]
    row = catalog.get("price", "4011")
    assert row is not None
    assert (row["kind"], row["schedule"][0]["amount_minor"]) == ("regular", 199)
    assert catalog.verify()["ok"]


def test_what_is_not_there_is_none_or_nothing(catalog: Catalog) -> None:
    assert (catalog.price("9"), catalog.product("9"), catalog.explain("9"), catalog.get("product", "9")) == (None,) * 4
    assert (catalog.products_by_gtin("9"), catalog.search("9"), catalog.quarantined()) == ([], [], [])
    prices = catalog.prices(iter(["9", "4011"]))
    assert list(prices.items()) == [("9", None), ("4011", catalog.price("4011"))]


@pytest.mark.parametrize(("kind", "amount_minor"), [("regular", 199), ("promotion", 149), ("clearance", None)])
def test_the_price_of_a_kind_need_not_be_the_one_to_sell_by(
    catalog: Catalog, kind: str, amount_minor: int | None
) -> None:
    found = catalog.price("4011", kind)
    assert (found and found["amount_minor"]) == amount_minor


@pytest.mark.parametrize("shift_s", [-1, 0])
@pytest.mark.parametrize(
    "written",
    [
        lambda at_s: at_s,
        lambda at_s: datetime.fromtimestamp(at_s, UTC).isoformat(),
        lambda at_s: datetime.fromtimestamp(at_s, timezone(timedelta(hours=5))),
    ],
    ids=["seconds", "text", "datetime"],
)
def test_a_time_may_be_written_in_three_ways(catalog: Catalog, written: Callable[[int], Any], shift_s: int) -> None:
    at = written(START + shift_s)
    is_there = shift_s == 0
    assert (catalog.price("4011", at=at) is not None) == is_there
    assert (catalog.prices(["4011"], at=at)["4011"] is not None) == is_there
    explanation = catalog.explain("4011", at=at)
    assert explanation is not None
    assert (explanation["price"] is not None) == is_there


@pytest.mark.parametrize(
    "wrong",
    [
        lambda catalog: catalog.price("4011", at=datetime(2026, 1, 1)),  # noqa: DTZ001 - without a zone, that is it
        lambda catalog: catalog.price("4011", at="2026-01-01T08:00"),
        lambda catalog: catalog.price("4011", at="noon"),
        lambda catalog: catalog.price("\ud800"),
        lambda catalog: catalog.search("milk", limit=0),
        lambda catalog: catalog.search("milk", limit=1_001),
        lambda catalog: catalog.get("tax", "x"),
        lambda catalog: catalog.get("price", ("4011", "regular", "surplus")),
        lambda catalog: catalog.search_rows("price", "x"),
        lambda catalog: open_catalog(catalog.path, contexts="/no/such/file.toml"),
    ],
)
def test_a_wrong_argument_is_named(catalog: Catalog, wrong: Callable[[Catalog], object]) -> None:
    with pytest.raises(BadArgument):
        wrong(catalog)
    assert amount(catalog) == 149, "it goes on"


def keys(document: Mapping[str, Any]) -> dict[str, Any]:
    return dict.fromkeys(document)


def annotated(name: str) -> dict[str, Any]:
    return dict.fromkeys(getattr(documents, name).__annotations__)


def test_the_documents_have_exactly_the_declared_keys(replica: Replica, catalog: Catalog) -> None:
    replica.connection.execute(
        "INSERT INTO quarantine VALUES('price/all', '[\"4011\", \"regular\"]', 9, '[]', 'odd', 1)"
    )
    explanation, product, price = catalog.explain("4011"), catalog.product("4011"), catalog.price("4011", "regular")
    assert explanation is not None
    assert product is not None
    assert price is not None
    status, freshness = catalog.status(), catalog.freshness()
    found: dict[str, Iterable[Any]] = {
        "Price": [price, product["price"], explanation["price"]],
        "Product": [product],
        "FoundProduct": catalog.search("milk"),
        "Explanation": [explanation],
        "Candidate": explanation["candidates"],
        "HeldPrice": explanation["held"],
        "Status": [status],
        "StreamStatus": status["streams"].values(),
        "ClockStatus": [status["clock"]],
        "DatabaseStatus": [status["database"]],
        "OutboxStatus": [status["outbox"]],
        "Freshness": [freshness],
        "StreamFreshness": freshness["streams"].values(),
        "QuarantinedEntity": catalog.quarantined(),
        "Proof": [catalog.verify()],
        "StreamProof": catalog.verify()["streams"].values(),
    }
    for name, each in found.items():
        assert each, name
        for document in each:
            assert document is not None
            assert keys(document) == annotated(name), name


@pytest.mark.parametrize("name", ["Price", "Product", "Freshness"])
def test_http_has_the_same_documents(name: str) -> None:
    assert keys(SCHEMAS[name]["properties"]) == annotated(name)


def test_a_program_may_begin_before_the_replica_is_there(tmp_path: Path) -> None:
    path = tmp_path / "replica.db"
    with open_catalog(path) as catalog:
        for question in (lambda: catalog.price("4011"), catalog.freshness, catalog.status, catalog.verify):
            with pytest.raises(ReplicaMissing):
                question()
        with closing(made(path).connection):
            assert amount(catalog) == 149


def test_a_replica_that_is_replaced_is_read_anew_and_one_that_is_gone_is_read_on(
    replica: Replica, catalog: Catalog, tmp_path: Path
) -> None:
    assert amount(catalog) == 149
    for suffix in ("-shm", "", "-wal"):
        Path(f"{replica.path}{suffix}").rename(tmp_path / f"away.db{suffix}")
    assert amount(catalog) == 149, "a replica that can be read is not taken away before a better one is there"
    with closing(made(replica.path, [(1, "4011", "regular", "EUR", f"[[{START},null,50]]")]).connection):
        assert amount(catalog) == 50


def test_a_damaged_replica_is_an_error_until_it_is_replaced(replica: Replica, catalog: Catalog, tmp_path: Path) -> None:
    replica.connection.close()
    replica.path.write_bytes(b"SQLite format 3\0" + b"\xff" * 9_000)
    with pytest.raises(ReplicaDamaged):
        catalog.price("4011")
    assert catalog.verify()["file"] != "ok"
    fresh = made(tmp_path / "fresh.db")
    fresh.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    fresh.connection.close()
    Path(tmp_path / "fresh.db").rename(replica.path)
    assert amount(catalog) == 149


def test_a_read_that_fails_while_the_file_is_replaced_is_made_again(
    replica: Replica, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is moved away after its name was looked at, and what is left of it is damaged."""
    price = queries.price
    replaced: list[Replica] = []

    def torn(*arguments: Any) -> Any:
        if not replaced:
            replica.path.rename(tmp_path / "away.db")
            replaced.append(made(replica.path, [(1, "4011", "regular", "EUR", f"[[{START},null,50]]")]))
            raise sqlite3.DatabaseError("database disk image is malformed")
        return price(*arguments)

    monkeypatch.setattr(queries, "price", torn)
    assert amount(catalog) == 50
    replaced[0].connection.close()


def test_a_snapshot_is_of_one_state_and_the_next_question_of_the_newest(replica: Replica, catalog: Catalog) -> None:
    with catalog.snapshot() as snapshot:
        before = snapshot.price("4011")
        put(replica, PRICE, [(3, "4011", "promotion", "EUR", f"[[{START},null,99]]")])
        assert snapshot.price("4011") == before == snapshot.prices(["4011"])["4011"] == catalog.price("4011")
        with catalog.snapshot() as inner:
            assert inner.price("4011") == before
    assert amount(catalog) == 99


def test_a_snapshot_outlives_the_replacement_of_the_file(replica: Replica, catalog: Catalog, tmp_path: Path) -> None:
    with catalog.snapshot() as snapshot:
        before = snapshot.price("4011")
        for suffix in ("-shm", "", "-wal"):
            Path(f"{replica.path}{suffix}").rename(tmp_path / f"away.db{suffix}")
        fresh = made(replica.path, [(1, "4011", "regular", "EUR", f"[[{START},null,50]]")])
        assert snapshot.price("4011") == before == catalog.price("4011")
    assert amount(catalog) == 50
    fresh.connection.close()


def test_it_belongs_to_one_thread_and_ends_with_its_block(replica: Replica, catalog: Catalog) -> None:
    catalog.price("4011")
    said: list[str] = []

    def elsewhere() -> None:
        try:
            catalog.price("4011")
        except RuntimeError as error:
            said.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert said == ["a Catalog belongs to the thread that asked it first: open one in each thread"]
    catalog.close()
    with pytest.raises(RuntimeError, match="closed"):
        catalog.price("4011")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_a_user_without_write_access_reads_with_the_daemon_dead() -> None:
    directory = Path(tempfile.mkdtemp(prefix="storenode-test-"))
    replica = made(directory / "replica.db")
    for path, mode in ((directory, 0o755), *((p, 0o644) for p in directory.iterdir())):
        path.chmod(mode)
    code = (
        "import json, os, sys; from storenode import open_catalog; os.setuid(int(sys.argv[2]));"
        "catalog = open_catalog(sys.argv[1]);"
        "print(json.dumps([catalog.price('4011')['amount_minor'], catalog.freshness()['state'],"
        " catalog.status()['pid'], os.access(sys.argv[1], os.W_OK)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(replica.path), str(NOBODY)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    replica.connection.close()
    shutil.rmtree(directory)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [149, "offline", None, False]
