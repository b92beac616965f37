"""The main path with real parts: processes, a broker, files, signals."""

from __future__ import annotations

import json
import os
import pwd
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from storelink.contract.contexts import BUILT_IN
from storelink.contract.messages import decode_live
from storelink.transport.mqtt import MqttLink
from storelink.transport.port import Connected, LinkEvent, Received
from storelink.transport.url import BrokerUrl
from testbed.chain import Chain
from testbed.process import until


def test_a_new_store_and_one_that_missed_20_000_changes_catch_up_with_hq_switched_off(chain: Chain) -> None:
    chain.hq_run.start()
    chain.import_prices(20_000, "1.00")
    chain.add_store("old")
    chain.wait_equal("old")
    chain.lines["old"].cut()
    chain.import_prices(20_000, "2.00")
    chain.wait_published()
    chain.hq_run.stop()
    chain.lines["old"].heal()
    chain.add_store("new")
    chain.wait_equal("old", "new")
    assert json.loads(chain.store("new", "price", "20000", "--json").stdout)["amount_minor"] == 200


def test_a_bootstrap_cut_in_the_middle_is_resumed_and_fetches_nothing_twice(chain: Chain) -> None:
    """Cut once, killed once; what the spool holds by then is not fetched again."""
    rng = random.Random(7)
    chain.import_amounts({str(sku): rng.randrange(100, 100_000) for sku in range(90_000)})
    chain.hq_run.start()
    chain.wait_published()
    chain.hq_run.stop()
    retained_bytes = chain.master()["price/all"]["retained_bytes"]
    chain.extra["STORENODE_MAX_KBPS"] = "2000"
    store = chain.add_store("s")
    spool = chain.replica("s").with_name("replica.db.spool") / "price" / "all"

    def spooled() -> int:
        return len([entry for entry in spool.glob("*") if len(entry.name) == 64])

    until(lambda: spooled() >= 1, "a segment has arrived")
    chain.lines["s"].cut()
    had = spooled()
    chain.lines["s"].heal()
    until(lambda: spooled() > had, "another one has arrived")
    store.stop(signal.SIGKILL)
    assert chain.store("s", "status").returncode == 2, "it is not bootstrapped yet"
    store.start()
    chain.wait_equal("s")
    largest_bytes = 131_072
    lost_twice_bytes = 2 * largest_bytes
    assert retained_bytes > 4 * largest_bytes
    assert retained_bytes < chain.lines["s"].bytes_down < retained_bytes + lost_twice_bytes


def test_a_cut_store_still_answers_and_says_that_it_is_not_fresh(chain: Chain) -> None:
    chain.hq_run.start()
    chain.import_prices(3, "1.00")
    chain.add_store("s")
    until(lambda: chain.store("s", "status").returncode == 0, "the store is live")
    chain.lines["s"].cut()
    until(lambda: chain.store("s", "status").returncode == 1, "the store knows that the line is down")
    assert json.loads(chain.store("s", "price", "2", "--json").stdout)["amount_minor"] == 100
    assert json.loads(chain.store("s", "status", "--json").stdout)["connected"] is False


def test_what_was_published_while_hq_run_was_down_goes_out_when_it_is_back(chain: Chain) -> None:
    chain.add_store("s")
    chain.hq("publish", "product", "sku=4011", "name=Bananas")
    assert chain.store("s", "get", "product", "4011").returncode == 1
    chain.hq_run.start()
    until(lambda: chain.store("s", "get", "product", "4011").returncode == 0, "the product arrived")


def test_both_sides_work_when_started_before_the_broker(tmp_path: Path) -> None:
    chain = Chain(tmp_path, start_broker=False)
    try:
        chain.hq_run.start()
        chain.import_prices(5, "1.00")
        chain.add_store("s")
        until(lambda: chain.store("s", "status").returncode == 2, "the store says that it never bootstrapped")
        chain.start_broker()
        chain.wait_equal("s")
    finally:
        chain.close()


def test_a_second_hq_run_and_a_second_store_say_so_and_leave(chain: Chain) -> None:
    chain.hq_run.start()
    chain.add_store("s")
    until(lambda: json.loads(chain.hq("status", "--json").stdout)["broker"]["connected"], "hq run is up")
    until(lambda: chain.store("s", "status").returncode != 3, "the store is up")
    for second in (chain.hq("run", check=False), chain.store("s", "run")):
        assert (second.returncode, "another" in second.stderr) == (1, True)


def test_a_broker_that_lost_its_retained_messages_is_seeded_again(chain: Chain) -> None:
    chain.hq_run.start()
    chain.import_prices(5_000, "1.00")
    chain.wait_published()
    chain.broker.kill()
    for kept in chain.directory.glob("mosquitto.db*"):
        kept.unlink()
    chain.broker.start()
    chain.add_store("s")
    chain.wait_equal("s")


def test_live_messages_are_cloudevents_in_binary_mode(chain: Chain) -> None:
    events: list[LinkEvent] = []
    link = MqttLink(BrokerUrl.parse(f"mqtt://127.0.0.1:{chain.port}"), "listener", events.append)
    link.start()
    until(lambda: any(isinstance(e, Connected) for e in events), "connected")
    link.subscribe(["storenode/live/price/all"])
    chain.hq_run.start()
    chain.hq("publish", "price", "sku=4011", "amount=1.99", "currency=EUR")

    def changes() -> list[Received]:
        live = [e for e in events if isinstance(e, Received)]
        return [e for e in live if decode_live("storenode", e.message, BUILT_IN).rows]

    until(lambda: len(changes()) > 0, "the change came")
    link.close()
    message = changes()[0].message
    assert {k: v for k, v in message.attributes.items() if k not in ("id", "time")} == {
        "specversion": "1.0",
        "source": "/storenode/price/all",
        "type": "io.storenode.live.v1",
        "subject": "price/all",
    }
    assert message.content_type == "application/json"
    assert message.attributes["id"].endswith("/1-1")
    idents = [e.message.attributes["id"] for e in events if isinstance(e, Received)]
    assert len(set(idents)) == len(idents)
    assert list(decode_live("storenode", message, BUILT_IN).changed) == [["currency", "schedule"]]


class Observer:
    """A till in a loop: counts how many prices are the new one, in one read each."""

    def __init__(self, path: Path, amount_minor: int) -> None:
        self.seen: set[int] = set()
        self.reads = 0
        self._stop = threading.Event()
        self._path, self._like = path, f"%,{amount_minor}]%"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as db:
            while not self._stop.is_set():
                sql = "SELECT count(*) FROM prices WHERE schedule LIKE ?"
                self.seen.add(db.execute(sql, (self._like,)).fetchone()[0])
                self.reads += 1

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize("cut", [False, True], ids=["live", "catch-up"])
def test_a_reader_sees_all_of_an_import_of_20_000_prices_or_none(chain: Chain, cut: bool) -> None:
    chain.hq_run.start()
    chain.import_prices(20_000, "1.00")
    chain.add_store("s")
    chain.wait_equal("s")
    observer = Observer(chain.replica("s"), 777)
    if cut:
        chain.lines["s"].cut()
    chain.import_prices(20_000, "7.77")
    if cut:
        chain.wait_published()
        chain.lines["s"].heal()
    chain.wait_equal("s")
    until(lambda: 20_000 in observer.seen, "the reader saw the import")
    observer.stop()
    assert observer.seen == {0, 20_000}
    assert observer.reads > 3


def test_kill_9_of_both_daemons_at_random_moments_under_load_loses_nothing(chain: Chain) -> None:
    rng = random.Random(20261124)
    chain.hq_run.start()
    chain.import_prices(2_000, "1.00")
    store = chain.add_store("s")
    stop = threading.Event()

    def load() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            rows = [{"sku": str(s), "amount": f"{turn}.{s % 100:02}", "currency": "EUR"} for s in range(200)]
            file = chain.directory / "load.ndjson"
            file.write_text("\n".join(map(json.dumps, rows)))
            chain.hq("import", "price", str(file))

    loader = threading.Thread(target=load)
    loader.start()
    for moment in range(20):
        # Not a wait for a condition: the moment of death is what is random here.
        time.sleep(rng.uniform(0.05, 0.8))
        victim = store if moment % 2 else chain.hq_run
        victim.stop(signal.SIGKILL)
        victim.start()
    stop.set()
    loader.join()
    chain.wait_equal("s")
    assert chain.hq("verify").returncode == 0


def test_sigterm_stops_cleanly_and_leaves_a_file_that_another_user_can_read(chain: Chain) -> None:
    chain.hq_run.start()
    chain.import_prices(10, "1.00")
    store = chain.add_store("s")
    chain.wait_equal("s")
    assert (store.stop(), chain.hq_run.stop()) == (0, 0)
    assert chain.replica("s").with_name("replica.db-shm").exists()
    read = "import sqlite3,sys; print(sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True).execute("
    read += "'SELECT count(*) FROM current_prices').fetchone()[0])"
    user: dict[str, int] = {}
    if os.getuid() == 0:
        for folder in (chain.directory, *chain.directory.parents):
            if folder.stat().st_uid == 0 and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o055)
        user = {"user": pwd.getpwnam("nobody").pw_uid, "group": pwd.getpwnam("nobody").pw_gid}
    python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
    till = subprocess.Popen(
        [python, "-c", read, str(chain.replica("s"))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        user=user.get("user"),
        group=user.get("group"),
    )
    assert till.communicate(timeout=20) == ("10\n", "")


def test_a_store_that_was_away_for_longer_than_deletions_are_kept_rebuilds_by_itself(chain: Chain) -> None:
    chain.hq_run.environ["HQ_TOMBSTONE_DAYS"] = "0.00001"
    chain.hq_run.start()
    chain.import_prices(2_000, "1.00")
    chain.add_store("away")
    chain.wait_equal("away")
    chain.lines["away"].cut()
    chain.hq("publish", "price", "sku=7", "kind=regular", "--delete")
    chain.hq("publish", "price", "sku=8", "amount=5.00", "currency=EUR")
    until(lambda: "tombstones.pruned" in chain.hq_run.log.read_text(), "the tombstone has gone")
    chain.wait_published()
    chain.lines["away"].heal()
    until(lambda: "rebuild.started" in (chain.directory / "away.log").read_text(), "the store rebuilds")
    chain.wait_equal("away")
    assert chain.store("away", "get", "price", "7").returncode != 0
    chain.hq("verify")


def test_products_that_compress_to_next_to_nothing_reach_a_store_that_follows_and_a_new_one(chain: Chain) -> None:
    """16 MB before compression: HQ once cut messages by their size as they travel only, and no store took them."""
    chain.hq_run.start()
    chain.add_store("old")
    chain.wait_equal("old")
    file = chain.directory / "products.csv"
    said = "Ripe bananas from the hills of Ecuador, sweet. " * 80
    file.write_text("sku,name,description\n" + "".join(f'{sku},Bananas {sku},"{said}"\n' for sku in range(4_000)))
    chain.hq("import", "product", str(file))
    chain.wait_published()
    chain.add_store("new")
    chain.wait_equal("old", "new")
