"""Real daemons and a real broker: a clock that is off, and the availability log over kill -9 and a lost replica."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

from storelink.contract.contexts import BUILT_IN
from storelink.contract.messages import Live, encode_live
from storelink.contract.streams import Stream
from storelink.contract.times import rfc3339
from storelink.transport.event_queue import EventQueue
from storelink.transport.mqtt import MqttLink
from storelink.transport.url import BrokerUrl
from testbed.chain import Chain
from testbed.process import until

HOUR_MS = 3_600_000


def status(chain: Chain) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(chain.store("s", "status", "--json").stdout or '{"state": "none"}')
    return found


def amount(chain: Chain) -> int:
    return int(json.loads(chain.store("s", "price", "1", "--json").stdout)["amount_minor"])


def intervals(chain: Chain) -> list[dict[str, Any]]:
    done = chain.store("s", "availability", "--intervals", "--json", check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)["streams"]["price/all"]["intervals"]
    return found


def ups_and_downs(chain: Chain) -> list[str]:
    return [each["state"] for each in intervals(chain) if each["state"] in ("live", "daemon_down")]


def test_a_machine_whose_clock_is_two_hours_behind_sells_at_hqs_time(chain: Chain) -> None:
    """HQ's clock is what the test makes it: it sends the heartbeats, two hours from now."""
    chain.hq_run.start()
    in_an_hour = rfc3339(time.time_ns() // 1_000_000 + HOUR_MS)
    chain.import_prices(1, "1.00")
    chain.hq("publish", "price", "sku=1", "amount=2.00", "currency=EUR", f"starts_at={in_an_hour}")
    chain.add_store("s")
    chain.wait_equal("s")
    chain.wait_published()
    chain.hq_run.stop()
    assert amount(chain) == 100
    price = chain.master()["price/all"]
    link = MqttLink(BrokerUrl.parse(f"mqtt://127.0.0.1:{chain.port}"), "hq-of-the-test", EventQueue().put)
    link.start()
    until(lambda: link.connected, "the test's HQ is connected")
    seq, digest = price["head_seq"], price["digest"]

    def judged() -> bool:
        at_ms = time.time_ns() // 1_000_000 + 2 * HOUR_MS
        heartbeat = Live(Stream.parse("price/all", BUILT_IN), price["epoch"], seq + 1, seq, digest, digest, True, at_ms)
        link.publish(encode_live("storenode", heartbeat))
        return status(chain)["clock"]["verdict"] in ("behind", "corrected")

    until(judged, "the clock is found to be behind")
    link.close()
    clock = status(chain)["clock"]
    assert abs(clock["skew_seconds"] + 7_200) < 60
    assert amount(chain) == 200, "the price of HQ's time"
    assert "The clock is" in chain.store("s", "status").stdout
    chain.stores["s"].stop(signal.SIGKILL)
    assert amount(chain) == 200, "also with the daemon dead"
    assert "clock.judged" in chain.stores["s"].log.read_text()


def test_a_kill_and_a_lost_replica_are_in_the_availability_log(chain: Chain) -> None:
    chain.hq_run.start()
    store = chain.add_store("s")
    until(lambda: status(chain)["state"] == "live", "the store is live")
    until(lambda: intervals(chain)[-1]["state"] == "live", "and the log says so")
    killed_s = time.time()
    store.stop(signal.SIGKILL)
    for part in chain.replica("s").parent.glob("replica.db*"):
        if part.is_file():
            part.unlink()
    until(lambda: time.time() - killed_s > 2.0, "some time passes")
    assert intervals(chain)[-1]["state"] == "daemon_down"
    store.start()
    # Between a daemon's start and its first write the log lets the last state go on.
    until(lambda: ups_and_downs(chain)[-2:] == ["daemon_down", "live"], "the store is live again")
    (down,) = (each for each in intervals(chain) if each["state"] == "daemon_down")
    assert down["from"] <= rfc3339(int(killed_s * 1000)) <= down["until"]
