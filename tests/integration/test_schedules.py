"""Price activations and backups with real parts: daemons, hooks, a web server, signals."""

from __future__ import annotations

import json
import shlex
import signal
import sqlite3
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from testbed.chain import Chain
from testbed.process import until

HOOK = """
import os, signal, sys
text = sys.stdin.read()
with open(sys.argv[1], "a") as log:
    log.write(text + "\\n")
if os.path.exists(sys.argv[1] + ".kill"):
    os.rename(sys.argv[1] + ".kill", sys.argv[1] + ".killed")
    os.kill(os.getppid(), signal.SIGKILL)
"""


def set_hook(chain: Chain) -> Path:
    """Have stores run a command as their hook; returns the file into which it writes what it gets."""
    script, log = chain.directory / "hook.py", chain.directory / "delivered.ndjson"
    script.write_text(HOOK)
    log.touch()
    chain.extra["STORENODE_PRICE_LOOK_S"] = "1"
    chain.extra["STORENODE_ON_PRICE_CHANGE"] = shlex.join([sys.executable, str(script), str(log)])
    return log


def delivered(log: Path, sku: str) -> list[int | None]:
    """The amounts that the hook got for one sku, in order."""
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    return [price["amount_minor"] for call in calls for price in call["prices"] if price["sku"] == sku]


def jobs(chain: Chain, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(chain.store(name, "jobs", "--json", check=True).stdout)["jobs"]
    return found


def wait_first_look(chain: Chain, name: str) -> None:
    until(lambda: "prices changed" in (jobs(chain, name)["activate"]["detail"] or ""), "the first look")


def promote(chain: Chain, sku: str, amount: str, starts_in_s: float, ends_in_s: float) -> None:
    now_s = time.time()
    starts, ends = (
        datetime.fromtimestamp(int(now_s + s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for s in (starts_in_s, ends_in_s)
    )
    chain.hq(
        "publish",
        "price",
        f"sku={sku}",
        f"amount={amount}",
        "currency=EUR",
        "kind=promotion",
        f"starts_at={starts}",
        f"ends_at={ends}",
    )


def test_a_promotion_of_seconds_is_delivered_at_its_start_and_its_end_and_a_live_change_too(chain: Chain) -> None:
    log = set_hook(chain)
    chain.extra["STORENODE_TELL_ACTIVATIONS"] = "true"
    chain.hq_run.start()
    chain.import_prices(2_000, "3.00")
    promote(chain, "17", "2.00", 3_600, 7_200)
    chain.add_store("s")
    chain.wait_equal("s")
    wait_first_look(chain, "s")
    assert log.read_text() == "", "a bootstrap activates nothing"
    promote(chain, "18", "2.50", 5, 9)
    chain.hq("publish", "price", "sku=19", "amount=3.33", "currency=EUR")
    until(lambda: delivered(log, "19") == [333], "the live change")
    until(lambda: delivered(log, "18") == [250, 300], "the promotion's start and end")
    assert {p["sku"] for line in log.read_text().splitlines() for p in json.loads(line)["prices"]} == {"18", "19"}
    assert chain.store("s", "price", "18", "--json").stdout.count("300") == 1
    entries: list[dict[str, Any]] = []

    def heard() -> set[str]:
        lines = chain.hq("inbox", "--ndjson", "--type", "storenode.price.activated").stdout.splitlines()
        entries[:] = [json.loads(line) for line in lines]
        return {sku for entry in entries for sku in entry["data"]["skus"]}

    until(lambda: bool(heard()), "HQ heard of it")
    assert heard() <= {"18", "19"}
    minutes = [entry["data"]["at"][:16] for entry in entries]
    assert len(minutes) == len(set(minutes)), "one entry a minute at most"
    found = jobs(chain, "s")
    assert (found["hook"]["ok"], found["activate"]["ok"]) == (True, True)


def test_what_changed_while_the_daemon_was_down_is_delivered_once_on_start(chain: Chain) -> None:
    log = set_hook(chain)
    chain.hq_run.start()
    chain.import_prices(2_000, "3.00")
    promote(chain, "17", "2.00", 3_600, 7_200)
    store = chain.add_store("s")
    chain.wait_equal("s")
    wait_first_look(chain, "s")
    store.stop()
    chain.import_prices(5, "4.00", first=100)
    chain.wait_published()
    for _ in range(2):
        store.start()
        until(lambda: chain.store("s", "status").returncode == 0, "live")
        until(lambda: all(delivered(log, str(sku)) == [400] for sku in range(100, 105)), "delivered on start")
        before = jobs(chain, "s")["activate"]["last_at"]
        until(lambda before=before: jobs(chain, "s")["activate"]["last_at"] != before, "a look")  # type: ignore[misc]
        assert all(delivered(log, str(sku)) == [400] for sku in range(100, 105)), "once"
        store.stop()


def test_a_daemon_killed_between_the_hook_and_its_mark_tells_it_once_more_and_never_again(chain: Chain) -> None:
    """The hook itself kills the daemon, so the moment is exact."""
    log = set_hook(chain)
    chain.hq_run.start()
    chain.import_prices(2_000, "3.00")
    store = chain.add_store("s")
    chain.wait_equal("s")
    wait_first_look(chain, "s")
    kill = Path(f"{log}.kill")
    kill.touch()
    chain.hq("publish", "price", "sku=7", "amount=1.11", "currency=EUR")
    until(lambda: not store.running, "the hook killed the daemon")
    assert delivered(log, "7") == [111]
    store.start()
    until(lambda: jobs(chain, "s")["hook"]["ok"] is True, "delivered again, and written down")
    assert delivered(log, "7") == [111, 111]
    store.stop()
    store.start()
    until(lambda: chain.store("s", "status").returncode == 0, "live")
    before = jobs(chain, "s")["activate"]["last_at"]
    until(lambda: jobs(chain, "s")["activate"]["last_at"] != before, "a look")
    assert delivered(log, "7") == [111, 111]


def test_a_web_hook_that_is_down_stops_nothing_and_gets_the_change_later(chain: Chain) -> None:
    posts: list[dict[str, Any]] = []
    is_up = threading.Event()

    class Labels(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if is_up.is_set():
                posts.append(json.loads(body))
            self.send_response(200 if is_up.is_set() else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Labels)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        chain.extra["STORENODE_PRICE_LOOK_S"] = "1"
        chain.extra["STORENODE_ON_PRICE_CHANGE"] = f"http://127.0.0.1:{server.server_port}/"
        chain.hq_run.start()
        chain.import_prices(100, "3.00")
        store = chain.add_store("s")
        chain.wait_equal("s")
        wait_first_look(chain, "s")
        chain.hq("publish", "price", "sku=7", "amount=1.11", "currency=EUR")
        until(lambda: jobs(chain, "s")["hook"]["ok"] is False, "the hook failed")
        assert "answered 503" in jobs(chain, "s")["hook"]["detail"]
        assert chain.store("s", "status").returncode == 0
        is_up.set()
        store.stop()
        store.start()
        until(lambda: len(posts) == 1, "delivered later")
        assert (posts[0]["skus"], posts[0]["prices"][0]["amount_minor"], store.running) == (["7"], 111, True)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_backup_under_load_is_restored_and_catches_up_and_the_outbox_goes_on(chain: Chain) -> None:
    chain.hq_run.start()
    chain.import_prices(5_000, "3.00")
    store = chain.add_store("s")
    chain.wait_equal("s")
    stop = threading.Event()

    def change() -> None:
        for number in range(1, 1_000):
            if stop.is_set():
                return
            chain.hq("publish", "price", f"sku={number}", "amount=9.99", "currency=EUR")

    load = threading.Thread(target=change)
    load.start()
    try:
        texts = [chain.store("s", "backup", str(chain.directory / "b"), "--json", check=True).stdout for _ in range(3)]
    finally:
        stop.set()
        load.join()
    made = [json.loads(text) for text in texts]
    assert made[0]["streams"]["price/all"] >= 5_000
    refused = chain.store("s", "restore", made[0]["file"])
    assert (refused.returncode, "the daemon has the replica" in refused.stderr) == (1, True)
    chain.wait_published()
    chain.wait_equal("s")
    assert store.running
    chain.lines["s"].cut()
    chain.store("s", "emit", "sale.total", "5", check=True)
    store.stop()
    done = json.loads(chain.store("s", "restore", made[0]["file"], "--json", check=True).stdout)
    assert done["streams"] == made[0]["streams"]
    with closing(sqlite3.connect(f"{Path(done['aside']).as_uri()}?mode=ro", uri=True)) as former:
        assert former.execute("SELECT count(*) FROM prices").fetchone() == (5_000,)
    store.start()
    chain.lines["s"].heal()
    chain.wait_equal("s")
    until(
        lambda: [json.loads(line)["data"] for line in chain.hq("inbox", "--ndjson").stdout.splitlines()] == [5],
        "the entry that waited came once",
    )
    assert store.stop(signal.SIGTERM) == 0


def test_a_nightly_backup_that_was_missed_is_made_once_on_start(chain: Chain) -> None:
    chain.extra["STORENODE_BACKUP_DIR"] = str(chain.directory / "b")
    chain.hq_run.start()
    chain.import_prices(100, "3.00")
    store = chain.add_store("s")
    chain.wait_equal("s")
    outbox = chain.replica("s").with_name("outbox.db")
    until(lambda: jobs(chain, "s")["checkpoint"]["next_at"] is not None and outbox.exists(), "the schedule runs")

    def known() -> bool:
        with closing(sqlite3.connect(f"{outbox.as_uri()}?mode=ro", uri=True)) as db:
            return bool(db.execute("SELECT count(*) FROM jobs WHERE name = 'backup'").fetchone()[0])

    until(known, "the store knows of its backups")
    store.stop()
    with closing(sqlite3.connect(outbox)) as db:  # the nights go by
        db.execute("UPDATE jobs SET since_ms = since_ms - 3 * 86400000, last_at_ms = last_at_ms - 3 * 86400000")
        db.commit()
    assert jobs(chain, "s")["backup"]["owed"]
    for _ in range(2):
        store.start()
        until(lambda: jobs(chain, "s")["backup"]["ok"] is True, "the backup")
        store.stop()
    assert len(list((chain.directory / "b").glob("replica-s-*.db"))) == 1
