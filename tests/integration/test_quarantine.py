"""A bad version from HQ, with real parts: held at the store, told to HQ, released by a later good one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hq.core.changes import Change
from hq.master.store import Master
from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream
from testbed.chain import Chain
from testbed.process import until

PRICE = Stream.parse("price/all", BUILT_IN)


def stream_of(chain: Chain, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(chain.store(name, "status", "--json").stdout)["streams"]["price/all"]
    return found


def amount(chain: Chain, name: str, sku: str) -> int | None:
    done = chain.store(name, "price", sku, "--json")
    return None if done.returncode else int(json.loads(done.stdout)["amount_minor"])


def test_one_bad_price_is_held_and_nothing_else_waits_for_it(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    chain.hq_run.start()
    chain.import_prices(50, "1.00")
    chain.add_store("old")
    chain.wait_equal("old")
    with monkeypatch.context() as lax, Master(chain.directory / "hq.db", BUILT_IN) as master:
        lax.setattr("hq.core.changes.decode_rows", lambda *_: None)  # an HQ that does not know the rule
        master.commit(PRICE, [Change(("17", "regular"), ("eur", "[[0,null,500]]"))], 1_767_225_600_000)
    chain.import_amounts({"18": 200})
    chain.wait_equal("old")
    assert (amount(chain, "old", "17"), amount(chain, "old", "18")) == (100, 200)
    assert (stream_of(chain, "old")["quarantined"], stream_of(chain, "old")["state"]) == (1, "live")
    (found,) = json.loads(chain.store("old", "quarantine", "--json").stdout)["quarantined"]
    assert (found["key"], found["reason"]) == (["17", "regular"], "currency: 'eur' is no currency")

    chain.wait_published()  # else its head is one of before the bad price, and so is what the new store has of it
    chain.add_store("new")
    chain.wait_equal("new")
    assert (amount(chain, "new", "17"), amount(chain, "new", "18")) == (None, 200)

    def told(count: int) -> bool:
        stores = json.loads(chain.hq("stores", "--json").stdout)["stores"].values()
        return [s["streams"].get("price/all", {}).get("quarantined") for s in stores] == [count, count]

    until(lambda: told(1), "HQ knows")
    chain.import_amounts({"17": 300})
    chain.wait_equal("old", "new")
    assert {amount(chain, name, "17") for name in ("old", "new")} == {300}
    assert {stream_of(chain, name)["quarantined"] for name in ("old", "new")} == {0}
    until(lambda: told(0), "HQ knows")
