"""`storenode verify`: the proof by scan."""

from __future__ import annotations

import json

import pytest

from storelink.contract.rows import row_hash, to_hex
from storenode.replica import verify
from storenode.replica.writer import Replica
from tests.unit.storenode.commands.store import LINE, PRICE, typed


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
    assert (result.exit_code, "HQ announced nothing yet" in result.stdout) == (3, True)
