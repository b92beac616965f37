"""`storenode status`: the document and the exit code with the daemon alive, dead or hung."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from storelink.contract.rows import row_hash, to_hex
from storenode.cli import main
from storenode.replica.writer import Replica
from tests.unit.storenode.commands.store import EPOCH, LINE, MILK, PRICE, PRODUCT, beat, now_ms, put, typed


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
