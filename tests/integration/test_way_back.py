"""Store to HQ with real parts: processes, a broker, files, signals."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

from hq.master.wakeup import WHAT
from storelink.host.wakeup import Wakeup, wakeup_address
from storenode.outbox.store import BELL, Outbox
from testbed.chain import Chain
from testbed.cut_line import Line
from testbed.process import until


def outbox_of(chain: Chain, name: str) -> Path:
    return chain.replica(name).with_name("outbox.db")


def inbox(chain: Chain, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in chain.hq("inbox", "--ndjson", *arguments).stdout.splitlines()]


def stores(chain: Chain) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(chain.hq("stores", "--json").stdout)["stores"]
    return found


def waiting(chain: Chain, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(chain.store(name, "status", "--json").stdout)["outbox"]
    return found


def test_what_was_emitted_with_everything_down_arrives_once_everything_is_up(chain: Chain) -> None:
    chain.replica("s").parent.mkdir()
    chain.lines["s"] = Line(chain.port)
    chain.lines["s"].cut()
    for number in range(3):
        done = chain.store("s", "emit", "sale.total", json.dumps({"number": number}), "--json", check=True)
        assert json.loads(done.stdout)["seq"] == number + 1
    chain.add_store("s")
    until(lambda: chain.store("s", "status").returncode == 2, "the store runs, and never bootstrapped")
    found = waiting(chain, "s")
    assert (found["pending"], found["acked_seq"], found["refused"]) == (3, 0, 0)
    assert found["oldest_age_seconds"] >= 0
    chain.lines["s"].heal()
    chain.hq_run.start()
    until(lambda: len(inbox(chain)) == 3, "all came")
    assert [(e["cursor"], e["store"], e["seq"], e["type"], e["data"]) for e in inbox(chain)] == [
        (n + 1, "s", n + 1, "sale.total", {"number": n}) for n in range(3)
    ]
    until(lambda: waiting(chain, "s")["pending"] == 0, "the acknowledgement removed them")
    assert waiting(chain, "s") == {"pending": 0, "oldest_age_seconds": None, "acked_seq": 3, "refused": 0}


def test_hq_knows_who_is_there_and_who_is_gone(chain: Chain) -> None:
    chain.hq_run.start()
    chain.import_prices(10, "1.00")
    killed, stopped = chain.add_store("killed"), chain.add_store("stopped")
    until(lambda: [s["state"] for s in stores(chain).values()] == ["live", "live"], "both say that they are live")
    found = stores(chain)["killed"]["streams"]["price/all"]
    assert (found["position"], found["lag_events"], found["digest"]) == (10, 0, chain.master()["price/all"]["digest"])
    killed.stop(signal.SIGKILL)
    stopped.stop()
    until(lambda: not any(s["online"] for s in stores(chain).values()), "one by its will, one by its word")
    assert stores(chain)["stopped"]["streams"]["price/all"]["position"] == 10
    chain.hq_run.stop()
    chain.add_store("killed")
    chain.hq_run.start()
    until(lambda: stores(chain)["killed"]["online"], "an HQ that was away reads it from the broker")


def test_kill_9_of_both_daemons_under_traffic_loses_nothing_and_doubles_nothing(chain: Chain) -> None:
    rng = random.Random(20261125)
    chain.hq_run.start()
    store = chain.add_store("s")
    until(lambda: outbox_of(chain, "s").exists(), "the outbox is made")
    stop, accepted = threading.Event(), [0]

    def traffic() -> None:
        with Outbox(outbox_of(chain, "s")) as outbox:
            while not stop.is_set():
                outbox.append("t", {"number": accepted[0], "pad": "x" * rng.choice((0, 0, 0, 20_000))})
                accepted[0] += 1
                stop.wait(0.002)

    emitter = threading.Thread(target=traffic)
    emitter.start()
    for moment in range(16):
        # Not a wait for a condition: the moment of death is what is random here.
        time.sleep(rng.uniform(0.05, 0.8))
        victim = store if moment % 2 else chain.hq_run
        victim.stop(signal.SIGKILL)
        victim.start()
    until(lambda: accepted[0] > 500, "enough was emitted, however busy the machine is")
    stop.set()
    emitter.join()
    until(lambda: waiting(chain, "s")["pending"] == 0, "all is acknowledged")
    assert [e["data"]["number"] for e in inbox(chain)] == list(range(accepted[0]))
    assert accepted[0] > 500


def test_a_broker_that_is_killed_loses_nothing_of_the_way_back(chain: Chain) -> None:
    chain.hq_run.start()
    chain.add_store("s")
    until(lambda: outbox_of(chain, "s").exists(), "the outbox is made")
    with Outbox(outbox_of(chain, "s")) as outbox:
        for number in range(300):
            outbox.append("t", number)
            if number % 100 == 50:
                chain.broker.kill()
                chain.broker.start()
    until(lambda: [e["data"] for e in inbox(chain)] == list(range(300)), "each came once, in order")


def test_a_stranger_who_takes_the_bell_keeps_no_daemon_from_its_work(chain: Chain) -> None:
    """Its address is one that every user of a machine can bind; the daemons took that for another daemon."""
    strangers = [
        Wakeup(wakeup_address(BELL, outbox_of(chain, "s"))),
        Wakeup(wakeup_address(WHAT, chain.directory / "hq.db")),
    ]
    chain.hq_run.start()
    chain.add_store("s")
    until(lambda: outbox_of(chain, "s").exists(), "the outbox is made")
    with Outbox(outbox_of(chain, "s")) as outbox:
        outbox.append("t", 1)
    until(lambda: [e["data"] for e in inbox(chain)] == [1], "HQ has it")
    chain.import_prices(1, "1.00")
    chain.wait_equal("s")
    for process in (chain.stores["s"], chain.hq_run):
        assert "wakeup.refused" in process.log.read_text()
    for stranger in strangers:
        stranger.close()


def test_two_daemons_never_send_from_one_outbox(chain: Chain) -> None:
    chain.add_store("a")
    until(lambda: chain.store("a", "status").returncode != 3, "the store is up")
    chain.lines["b"] = chain.lines["a"]
    chain.replica("b").parent.mkdir()
    (chain.directory / "b.toml").write_text(f'outbox = "{outbox_of(chain, "a")}"\n')
    second = chain.store("b", "--config", str(chain.directory / "b.toml"), "run")
    assert (second.returncode, "has the outbox" in second.stderr) == (1, True)
