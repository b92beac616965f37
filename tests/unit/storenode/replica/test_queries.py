"""What the commands tell: the status document with the daemon alive, dead or hung, and the proof by scan."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.digest import row_hash, to_hex
from storelink.contract.streams import Stream
from storelink.host.locks import lock_instance
from storenode.cli import main
from storenode.replica import verify
from storenode.replica.writer import Replica

PRICE, PRODUCT = Stream.parse("price/all", BUILT_IN), Stream.parse("product/all", BUILT_IN)
EPOCH = "000000000001-00000000"
LINE: Row = (1, "4011", "regular", "EUR", "[[1700000000,null,199]]")
MILK: Row = (1, "4011", "5012345678900", "Milk", *(None,) * 9, '{"organic":true}')


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def put(replica: Replica, stream: Stream, row: Row) -> None:
    replica.apply(
        stream,
        epoch=EPOCH,
        position=1,
        digest=to_hex(row_hash(row)),
        head_seq=1,
        batches=[([row], [])],
        replace=False,
        wall_ms=now_ms(),
    )


def beat(replica: Replica, *, seen_s: int = 0) -> None:
    seen_ms = now_ms() - seen_s * 1000
    replica.heartbeat(
        store_id="store-7",
        pid=os.getpid(),
        connected=True,
        started_at_ms=seen_ms - 60_000,
        counters={"rows": 2},
        wall_ms=seen_ms,
    )


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    replica = Replica.open(tmp_path / "replica.db", ("all", "price/zone-west"), BUILT_IN)
    yield replica
    replica.connection.close()


@pytest.fixture
def live(replica: Replica) -> Iterator[Replica]:
    """A replica whose daemon is at work: it holds the lock, both main streams are live."""
    put(replica, PRICE, LINE)
    put(replica, PRODUCT, MILK)
    beat(replica)
    lock = lock_instance(Path(f"{replica.path}.lock"))
    assert lock is not None
    with lock:
        yield replica


def typed(replica: Replica, *words: str) -> Result:
    return CliRunner().invoke(main, ["--db", str(replica.path), *words], env={"STORENODE_CONFIG": ""})


def document(replica: Replica) -> tuple[int, dict[str, Any]]:
    result = typed(replica, "status", "--json")
    return result.exit_code, json.loads(result.stdout)


def test_the_status_document_is_exactly_the_documented_one(live: Replica) -> None:
    code, found = document(live)
    stream = found["streams"]["price/all"]
    assert (code, found["state"], found["store_id"], found["connected"], found["pid"]) == (
        0,
        "live",
        "store-7",
        True,
        os.getpid(),
    )
    assert list(found) == [
        "store_id",
        "state",
        "connected",
        "pid",
        "uptime_seconds",
        "streams",
        "contexts",
        "outbox",
        "clock",
        "database",
        "counters",
    ]
    assert stream.pop("as_of").endswith("Z")
    assert stream.pop("stale_seconds") <= 30
    assert stream == {
        "state": "live",
        "epoch": EPOCH,
        "position": 1,
        "head_seq": 1,
        "lag_events": 0,
        "rows": 1,
        "digest": to_hex(row_hash(LINE)),
        "verified_at": None,
        "verified_ok": None,
        "quarantined": 0,
        "rebuilt_at": None,
        "rebuild_reason": None,
        "refusal": None,
    }
    assert set(found["database"]) == {"path", "bytes", "wal_bytes", "free_bytes"}
    assert 60 <= found["uptime_seconds"] <= 90
    assert found["counters"] == {"rows": 2}


def test_a_scope_that_hq_never_announced_does_not_spoil_the_state(live: Replica) -> None:
    code, found = document(live)
    assert found["streams"]["price/zone-west"]["state"] == "bootstrapping"
    assert (code, found["state"]) == (0, "live")


def test_a_dead_daemon_is_offline_at_once(replica: Replica) -> None:
    put(replica, PRICE, LINE)
    put(replica, PRODUCT, MILK)
    beat(replica)
    code, found = document(replica)
    assert (code, found["state"], found["connected"], found["pid"], found["uptime_seconds"]) == (
        1,
        "offline",
        False,
        None,
        None,
    )


def test_a_hung_daemon_is_not_connected(live: Replica) -> None:
    beat(live, seen_s=120)
    _, found = document(live)
    assert (found["connected"], found["pid"]) == (False, os.getpid())


def age(replica: Replica) -> None:
    replica.note(PRICE, state="live", head_seq=1, as_of_ms=now_ms() - 120_000)


def lag(replica: Replica) -> None:
    replica.note(PRICE, state="catching_up", head_seq=9, as_of_ms=None)


def fork(replica: Replica) -> None:
    replica.note(PRICE, state="diverged", head_seq=1, as_of_ms=None)


def rebuild(replica: Replica) -> None:
    replica.note(PRICE, state="rebuilding", head_seq=1, as_of_ms=None)


def differ(replica: Replica) -> None:
    replica.set_verified(PRICE, ok=False, at_ms=now_ms())


def prove(replica: Replica) -> None:
    replica.set_verified(PRICE, ok=True, at_ms=now_ms())


@pytest.mark.parametrize(
    ("change", "code", "state"),
    [
        (prove, 0, "live"),
        (age, 1, "offline"),
        (lag, 1, "catching_up"),
        (rebuild, 1, "rebuilding"),
        (fork, 2, "diverged"),
        (differ, 2, "diverged"),
    ],
)
def test_status_leaves_with_the_verdict_on_the_worst_stream(
    live: Replica, change: Callable[[Replica], None], code: int, state: str
) -> None:
    change(live)
    found_code, found = document(live)
    assert (found_code, found["state"]) == (code, state)
    assert state in typed(live, "status").stdout


def test_a_store_that_never_bootstrapped_is_not_usable(replica: Replica) -> None:
    put(replica, PRICE, LINE)
    code, found = document(replica)
    assert (code, found["state"]) == (2, "bootstrapping")


@pytest.mark.parametrize("words", [["status"], ["status", "--no-such-option"], ["verify"], ["verify", "surplus"]])
def test_what_could_not_be_judged_leaves_with_3(tmp_path: Path, words: list[str]) -> None:
    result = CliRunner().invoke(main, ["--db", str(tmp_path / "none.db"), *words])
    assert result.exit_code == 3
    assert result.stdout == ""


def test_status_writes_nothing_and_makes_no_file(tmp_path: Path) -> None:
    CliRunner().invoke(main, ["--db", str(tmp_path / "none.db"), "status"])
    assert list(tmp_path.iterdir()) == []


def test_a_scan_proves_rows_against_the_announced_digest(live: Replica) -> None:
    assert verify.scan(live.path, PRICE).ok
    result = typed(live, "verify")
    assert (result.exit_code, "DIFFERS" in result.stdout) == (0, False)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE prices SET schedule = '[[1700000000,null,198]]'",
        "UPDATE prices SET seq = 2",
        "DELETE FROM prices",
        "INSERT INTO prices SELECT 'all', 'x', kind, currency, schedule, seq FROM prices",
    ],
)
def test_a_scan_finds_any_row_that_is_not_hqs(live: Replica, sql: str) -> None:
    live.connection.execute(sql)
    scan = verify.scan(live.path, PRICE)
    assert (scan.ok, scan.announced) == (False, to_hex(row_hash(LINE)))
    result = typed(live, "verify", "--json")
    assert result.exit_code == 2
    assert {name: s["ok"] for name, s in json.loads(result.stdout)["streams"].items()} == {
        "price/all": False,
        "price/zone-west": True,
        "product/all": True,
    }


def test_verify_of_a_replica_without_content_proves_nothing(replica: Replica) -> None:
    result = typed(replica, "verify")
    assert (result.exit_code, "never bootstrapped" in result.stdout) == (3, True)


def test_get_prints_a_row_with_its_json_taken_apart(live: Replica) -> None:
    found = json.loads(typed(live, "get", "product", "4011", "--json").stdout)
    assert {name: value for name, value in found.items() if value is not None} == {
        "scope": "all",
        "seq": 1,
        "sku": "4011",
        "gtin": "5012345678900",
        "name": "Milk",
        "attributes": {"organic": True},
    }


def test_get_fills_the_kind_of_a_price_and_honours_the_scope(live: Replica) -> None:
    put(live, Stream.parse("price/zone-west", BUILT_IN), (1, "4011", "regular", "EUR", "[[1700000000,1900000000,150]]"))
    scopes = {
        words: json.loads(typed(live, "get", "price", "4011", *words, "--json").stdout)["scope"]
        for words in ((), ("regular",), ("--scope", "all"))
    }
    assert scopes == {(): "zone-west", ("regular",): "zone-west", ("--scope", "all"): "all"}
    assert json.loads(typed(live, "get", "price", "4011", "--json").stdout)["schedule"] == [
        {"starts_at": "2023-11-14T22:13:20Z", "ends_at": "2030-03-17T17:46:40Z", "amount_minor": 150}
    ]


def test_price_prints_the_documented_keys(live: Replica) -> None:
    assert json.loads(typed(live, "price", "4011", "--json").stdout) == {
        "sku": "4011",
        "amount_minor": 199,
        "currency": "EUR",
        "kind": "regular",
        "scope": "all",
        "starts_at": "2023-11-14T22:13:20Z",
        "ends_at": None,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["price", "nope"], "error: no price for nope now in this replica"),
        (["price", "4011", "--at", "2020-01-01"], "error: no price for 4011 at 2020-01-01T00:00:00Z in this replica"),
        (["price", "4011", "--at", "2026-01-01T08"], "error: '2026-01-01T08' lacks Z or an offset"),
        (["price", "4011", "--at", "20260101T0800"], "error: '20260101T0800' lacks Z or an offset"),
        (["price", "4011", "--at", "noon"], "error: 'noon' is not a time"),
        (["price", "4011", "--at", "2026-01-01T08:00"], "error: '2026-01-01T08:00' lacks Z or an offset"),
        (["get", "product", "nope"], "error: no product nope in this replica"),
        (["get", "product", "1", "--scope", "zone-west"], "error: no product 1 in scope zone-west of this replica"),
    ],
)
def test_what_is_not_there_is_one_clear_line_and_a_hint(live: Replica, words: list[str], message: str) -> None:
    result = typed(live, *words)
    assert (result.exit_code, result.stdout) == (1, "")
    first, second = result.stderr.splitlines()
    assert first == message
    assert second.startswith("hint: ")
