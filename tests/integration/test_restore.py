"""HQ's master restored from a copy, with real processes: every store follows it back, and HQ can prove it."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from testbed.chain import Chain
from testbed.process import until


def proof(chain: Chain) -> tuple[int, dict[str, Any]]:
    done = chain.hq("verify", "--json", check=False)
    return done.returncode, json.loads(done.stdout)["stores"].get("s", {}).get("price/all", {})


def test_stores_follow_a_master_that_was_restored_while_they_sell_on(chain: Chain) -> None:
    chain.hq_run.start()
    chain.import_prices(300, "1.00")
    chain.hq("backup", str(chain.directory / "copy.db"))
    chain.import_prices(300, "2.00")
    chain.add_store("s")
    chain.wait_equal("s")
    assert "systemctl stop hq" in chain.hq("restore", str(chain.directory / "copy.db"), check=False).stderr
    chain.hq_run.stop()
    chain.hq("restore", str(chain.directory / "copy.db"))
    chain.hq_run.start()
    amounts = set()
    with sqlite3.connect(f"{chain.replica('s').as_uri()}?mode=ro", uri=True) as till:

        def is_back() -> bool:
            found = till.execute("SELECT amount_minor, count(*) FROM current_prices GROUP BY 1").fetchall()
            amounts.add(tuple(found))
            return found == [(100, 300)]

        until(is_back, "the prices of the copy are back")
    assert amounts == {((200, 300),), ((100, 300),)}
    chain.wait_equal("s")
    found = json.loads(chain.store("s", "status", "--json").stdout)["streams"]["price/all"]
    assert found["rebuild_reason"] == "epoch"
    until(lambda: proof(chain)[1].get("ok") is True, "the store told HQ, and HQ proved it")
    assert proof(chain)[0] == 0


def test_a_store_whose_digest_the_master_never_had_is_named(chain: Chain) -> None:
    chain.hq_run.start()
    chain.import_prices(10, "1.00")
    chain.add_store("s")
    until(lambda: proof(chain)[1].get("ok") is True, "proven")
    chain.stores["s"].stop()
    chain.hq_run.stop()
    with sqlite3.connect(chain.directory / "hq.inbox.db") as inbox:  # as if the store had said so
        inbox.execute("UPDATE stores SET status = replace(status, '\"position\":10', '\"position\":9')")
    inbox.close()
    code, found = proof(chain)
    assert (code, found["ok"]) == (2, False)
