"""A damaged replica heals from the broker, with HQ off; somebody else's file is left alone."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest

from testbed.chain import Chain
from testbed.process import until


@pytest.mark.parametrize("damage", ["schema page", "magic", "truncated"])
def test_a_damaged_replica_is_set_aside_and_filled_again_with_hq_off(chain: Chain, damage: str) -> None:
    chain.hq_run.start()
    chain.import_prices(3_000, "1.00")
    store = chain.add_store("s")
    chain.wait_equal("s")
    chain.wait_published()
    chain.hq_run.stop()
    store.stop()
    path = chain.replica("s")
    whole = path.read_bytes()
    damaged = {
        "schema page": whole[:100] + b"\xff" * 3_996 + whole[4_096:],
        "magic": b"\xff" * 4_096 + whole[4_096:],
        "truncated": whole[:5_000],
    }
    path.write_bytes(damaged[damage])
    store.start()
    chain.wait_equal("s")
    assert "replica.moved_away" in store.log.read_text()


def test_damage_that_shows_while_the_daemon_runs_is_healed_by_itself(chain: Chain) -> None:
    """No supervisor is there: the daemon sets the file aside and begins anew, under the same pid."""
    chain.hq_run.start()
    chain.import_prices(3_000, "1.00")
    store = chain.add_store("s")
    chain.wait_equal("s")
    store.stop()  # the log goes into the file
    store.start()
    until(lambda: chain.store("s", "status").returncode == 0, "the store is live again")
    path = chain.replica("s")
    with path.open("r+b") as file:
        file.seek(4_096)
        file.write(b"\xff" * (path.stat().st_size - 4_096))
    chain.import_prices(3_000, "2.00")
    chain.wait_equal("s")
    assert store.running
    assert "replica.moved_away" in store.log.read_text()
    assert json.loads(chain.store("s", "price", "17", "--json").stdout)["amount_minor"] == 200


def test_rows_that_are_not_hqs_are_found_at_the_start_and_fetched_anew_with_hq_off(chain: Chain) -> None:
    """A bit that flipped in a price breaks no page: only the digest shows it."""
    chain.hq_run.start()
    chain.import_prices(3_000, "1.00")
    store = chain.add_store("s")
    chain.wait_equal("s")
    chain.wait_published()
    chain.hq_run.stop()
    store.stop()
    other = sqlite3.connect(chain.replica("s"))
    other.execute("UPDATE prices SET schedule = replace(schedule, ',100]', ',900]') WHERE sku = '17'")
    other.commit()
    other.close()
    proof = chain.store("s", "verify")
    assert (proof.returncode, "DIFFERS" in proof.stdout) == (2, True)
    store.start()
    chain.wait_equal("s")
    until(lambda: price_stream(chain)["rebuild_reason"] == "scan", "the reason is told")
    assert json.loads(chain.store("s", "price", "17", "--json").stdout)["amount_minor"] == 100
    assert "replica.moved_away" not in store.log.read_text()


@pytest.mark.parametrize("claim", ["position = 1000000", "epoch = 'ffffffffffff-00000000'"])
def test_a_replica_that_claims_more_than_hq_ever_had_is_fetched_anew(chain: Chain, claim: str) -> None:
    """It saw nothing but repeats, called itself live and never moved again."""
    chain.hq_run.start()
    chain.import_prices(30, "1.00")
    store = chain.add_store("s")
    chain.wait_equal("s")
    store.stop()
    other = sqlite3.connect(chain.replica("s"))
    other.execute(f"UPDATE streams SET {claim} WHERE stream = 'price/all'")
    other.commit()
    other.close()
    store.start()
    until(lambda: price_stream(chain)["rebuild_reason"] == "ahead", "HQ's heartbeats prove it wrong")
    chain.import_prices(30, "2.00")
    chain.wait_equal("s")


def test_a_rebuild_can_be_asked_for_and_readers_miss_nothing_meanwhile(chain: Chain) -> None:
    chain.hq_run.start()
    chain.import_prices(3_000, "1.00")
    chain.add_store("s")
    chain.wait_equal("s")
    assert chain.store("s", "rebuild", "price/zone-x").returncode == 1
    chain.store("s", "rebuild", "price/all", check=True)
    counts = set()
    with sqlite3.connect(f"{chain.replica('s').as_uri()}?mode=ro", uri=True) as till:

        def rebuilt() -> bool:
            counts.add(till.execute("SELECT count(*) FROM current_prices").fetchone()[0])
            return bool(price_stream(chain)["rebuilt_at"])

        until(rebuilt, "it was rebuilt")
    assert counts == {3_000}
    assert price_stream(chain)["rebuild_reason"] == "asked"
    until(lambda: reason_at_hq(chain) == "asked", "HQ knows why")


def price_stream(chain: Chain) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(chain.store("s", "status", "--json").stdout)["streams"]["price/all"]
    return found


def reason_at_hq(chain: Chain) -> str | None:
    found = json.loads(chain.hq("stores", "--json").stdout)["stores"]["s"]["streams"]["price/all"]["rebuild_reason"]
    return None if found is None else str(found)


def test_somebody_elses_database_is_refused_and_not_touched(chain: Chain) -> None:
    path = chain.directory / "s" / "replica.db"
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE mine (x)")
    other.commit()
    other.close()
    before = path.read_bytes()
    store = chain.add_store("s")
    assert store.wait() == 1
    assert (path.read_bytes(), list(path.parent.glob("*.damaged-*"))) == (before, [])
