"""The right price through everything, with real processes: overrides, other scopes, and where a price came from."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from testbed.chain import Chain
from testbed.process import until

UNTIL = "2099-01-01T00:00:00Z"


class Till(threading.Thread):
    """Asks for one price as often as it can, and remembers each different answer; None: there was none."""

    def __init__(self, path: Path, sku: str) -> None:
        super().__init__(daemon=True)
        self._path, self._sku = path, sku
        self._over = threading.Event()
        self.seen: list[int | None] = []
        self.asked = 0

    def run(self) -> None:
        db: sqlite3.Connection | None = None
        while not self._over.is_set():
            if db is None:
                with suppress(sqlite3.OperationalError):  # a replica that is reinstalled is not there for a moment
                    db = self._opened()
                continue
            row = db.execute("SELECT amount_minor FROM current_prices WHERE sku = ?", (self._sku,)).fetchone()
            found = row[0] if row else None
            self.asked += 1
            if not self.seen or self.seen[-1] != found:
                self.seen.append(found)
            self._over.wait(0.001)
        if db is not None:
            db.close()

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            db.execute("SELECT 1 FROM current_prices LIMIT 1")
        except BaseException:
            db.close()
            raise
        return db

    def __enter__(self) -> Till:
        there = self._path.exists()
        self.start()
        if there:
            until(lambda: self.asked > 0, "the till has asked once")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def price(chain: Chain, sku: str) -> int | None:
    done = chain.store("s", "price", sku, "--json")
    return json.loads(done.stdout)["amount_minor"] if done.returncode == 0 else None


def told(chain: Chain) -> list[tuple[str, str, int]]:
    listed = json.loads(chain.hq("overrides", "--json").stdout)["overrides"]
    return [(each["store"], each["sku"], each["amount_minor"]) for each in listed]


def started(chain: Chain) -> int:
    return (chain.directory / "s.log").read_text().count("store.started")


def test_an_override_is_sold_at_once_told_to_hq_and_survives_rebuild_and_reinstall(chain: Chain) -> None:
    chain.hq_run.start()
    chain.import_prices(50, "1.00")
    store = chain.add_store("s")
    until(lambda: price(chain, "7") == 100, "the store sells")
    done = chain.store("s", "override", "7", "0.50", "--until", UNTIL, "--reason", "dented", "--json", check=True)
    assert json.loads(done.stdout)["effective"] is True
    assert price(chain, "7") == 50
    until(lambda: told(chain) == [("s", "7", 50)], "HQ has been told")
    with Till(chain.replica("s"), "7") as till:
        chain.hq("publish", "price", "sku=7", "amount=0.90", "currency=EUR")
        chain.store("s", "rebuild", "price/all")
        chain.wait_equal("s")
    assert till.seen == [50], "HQ's change and a rebuild are not seen through an override"
    store.stop(signal.SIGKILL)
    for file in chain.replica("s").parent.glob("replica.db*"):
        if file.is_file():
            file.unlink()
    with Till(chain.replica("s"), "7") as till:
        store.start()
        until(lambda: price(chain, "8") == 100, "the new replica is complete")
    assert [each for each in till.seen if each is not None] == [50]
    chain.wait_equal("s")
    assert chain.store("s", "override", "7", "--withdraw").returncode == 0
    assert price(chain, "7") == 90
    until(lambda: told(chain) == [], "HQ has been told")


def test_an_override_set_with_the_daemon_dead_is_sold_at_once_and_told_later(chain: Chain) -> None:
    chain.hq_run.start()
    chain.import_prices(5, "1.00")
    store = chain.add_store("s")
    until(lambda: price(chain, "1") == 100, "the store sells")
    store.stop()
    with Till(chain.replica("s"), "1") as till:
        assert chain.store("s", "override", "1", "0.70", "--until", UNTIL, "--reason", "r").returncode == 0
        assert price(chain, "1") == 70
        store.start()
        until(lambda: told(chain) == [("s", "1", 70)], "HQ has been told")
    assert till.seen == [100, 70]


@pytest.mark.parametrize("offline", [False, True], ids=["with the line up", "with the line down meanwhile"])
def test_a_store_that_moves_to_another_zone_has_a_price_at_every_moment(chain: Chain, offline: bool) -> None:
    config = chain.directory / "s.toml"
    config.write_text('scopes = ["price/zone-west"]\n')
    chain.extra["STORENODE_CONFIG"] = str(config)
    file = chain.directory / "zone.csv"
    for scope, amount in (("zone-west", "1.00"), ("zone-east", "2.00")):
        file.write_text("sku,amount,currency\n" + "".join(f"{sku},{amount},EUR\n" for sku in range(3_000)))
        chain.hq("import", "price", str(file), "--scope", scope)
    chain.hq_run.start()
    chain.add_store("s")
    until(lambda: price(chain, "7") == 100, "the store sells at the prices of its zone")
    with Till(chain.replica("s"), "7") as till:
        pid = json.loads(chain.store("s", "status", "--json").stdout)["pid"]
        config.write_text('scopes = ["price/zone-nowhere!"]\n')
        os.kill(pid, signal.SIGHUP)
        log = chain.directory / "s.log"
        until(lambda: "settings.rejected" in log.read_text(), "what makes no sense is refused")
        if offline:
            chain.lines["s"].cut()
        config.write_text('scopes = ["price/zone-east"]\n')
        os.kill(pid, signal.SIGHUP)
        until(lambda: started(chain) == 2, "it begins anew")
        if offline:
            until(lambda: streams(chain) == {"price/zone-east": "bootstrapping"}, "it has nothing of the new zone")
            assert price(chain, "7") == 100
            chain.lines["s"].heal()
        until(lambda: price(chain, "7") == 200, "the new zone's prices are there")
        until(lambda: scopes(chain) == ["zone-east"], "the old zone's rows are gone")
        assert json.loads(chain.store("s", "status", "--json").stdout)["pid"] == pid
    assert till.seen == [100, 200]
    assert till.asked > 100
    assert chain.store("s", "verify").returncode in (0, 3)


def streams(chain: Chain) -> dict[str, Any]:
    found = json.loads(chain.store("s", "status", "--json").stdout)["streams"]
    return {name: each["state"] for name, each in found.items()}


def scopes(chain: Chain) -> list[str]:
    db = sqlite3.connect(f"{chain.replica('s').as_uri()}?mode=ro", uri=True)
    try:
        return [scope for (scope,) in db.execute("SELECT DISTINCT scope FROM prices ORDER BY 1")]
    finally:
        db.close()


def test_a_price_is_explained_by_the_batch_that_brought_it(chain: Chain) -> None:
    chain.hq_run.start()
    chain.import_prices(50, "1.00")
    chain.add_store("s")
    until(lambda: price(chain, "7") == 100, "the store sells")
    chain.hq("publish", "price", "sku=7", "amount=0.90", "currency=EUR", "kind=promotion", f"ends_at={UNTIL}")
    until(lambda: price(chain, "7") == 90, "the promotion is there")
    head = chain.master()["price/all"]
    found = json.loads(chain.store("s", "explain", "7", "--json", check=True).stdout)
    won, lost = found["candidates"]
    commit = won["commit"]
    assert (won["kind"], won["seq"], won["why"]) == ("promotion", 51, "a promotion wins over a regular price")
    assert [commit[name] for name in ("how", "first_seq", "last_seq", "epoch", "digest")] == [
        "live",
        51,
        51,
        head["epoch"],
        head["digest"],
    ]
    assert commit["published_at"] <= commit["received_at"] <= commit["applied_at"] <= found["effective_at"] + "~"
    assert (lost["kind"], lost["commit"]["first_seq"] <= 7 <= lost["commit"]["last_seq"]) == ("regular", True)
