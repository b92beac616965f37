"""A second master on the same broker and root, with real processes: stores keep what they have."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream, head_topic
from storelink.transport.event_queue import EventQueue
from storelink.transport.mqtt import MqttLink
from storelink.transport.port import Connected, Message, Published
from storelink.transport.url import BrokerUrl
from testbed import commands
from testbed.chain import Chain
from testbed.process import Process, command, until


class SecondHq:
    """Another master, on the machine, broker and root of a chain."""

    def __init__(self, chain: Chain) -> None:
        self._environ = chain.hq_run.environ | {"HQ_DB": str(chain.directory / "second.db")}
        self._log = chain.directory / "second.log"
        self.process = self._process()
        self.hq("init")
        for sku in range(3):
            self.hq("publish", "product", f"sku={sku}", "name=from the second")

    def _process(self, *options: str) -> Process:
        return Process([command("hq"), "run", *options], self._environ, self._log)

    def start(self, *options: str) -> None:
        self.process = self._process(*options)
        self.process.start()

    def hq(self, *arguments: str, check: bool = True) -> str:
        done = commands.run("hq", arguments, self._environ)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.hq("status", "--json"))
        return found

    @property
    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture
def second(chain: Chain) -> Iterator[SecondHq]:
    found = SecondHq(chain)
    yield found
    found.process.kill()


def products(chain: Chain) -> list[tuple[str, int]]:
    """What a till reads: names, and of how many products."""
    with closing(sqlite3.connect(f"{chain.replica('s').as_uri()}?mode=ro", uri=True)) as till:
        return till.execute("SELECT name, count(*) FROM products GROUP BY 1").fetchall()


def publish(chain: Chain, count: int, name: str) -> None:
    file = chain.directory / "products.csv"
    file.write_text("sku,name\n" + "".join(f"{sku},{name}\n" for sku in range(count)))
    chain.hq("import", "product", str(file))


def clear_heads(chain: Chain) -> None:
    """As a person does it at the broker, with mosquitto_pub -r -n."""
    inbox, cleared = EventQueue(), 0
    link = MqttLink(BrokerUrl.parse(f"mqtt://127.0.0.1:{chain.port}"), "a-person", inbox.put)
    link.start()

    def is_done() -> bool:
        nonlocal cleared
        match inbox.pop():
            case Connected():
                for context in BUILT_IN.values():
                    link.publish(Message(head_topic("storenode", Stream(context, "all")), b"", True))
            case Published():
                cleared += 1
            case _:
                pass
        return cleared == len(BUILT_IN)

    until(is_done, "the heads are cleared")
    link.close()


def test_a_second_master_empties_no_store_and_says_why_it_is_silent(chain: Chain, second: SecondHq) -> None:
    chain.hq_run.start()
    publish(chain, 50, "ours")
    chain.add_store("s")
    chain.wait_equal("s")
    second.start()
    until(lambda: bool(second.status()["foreign"]), "it knows of the other master")
    ours = chain.master()
    assert {n: (h["epoch"], h["seq"]) for n, h in second.status()["foreign"].items()} == {
        name: (facts["epoch"], facts["head_seq"]) for name, facts in ours.items()
    }
    said = second.hq("status")
    assert "publishes nothing" in said
    assert ours["product/all"]["epoch"] in said
    assert "hq run --take-over" in said
    assert "heads.foreign" in second.log
    assert second.log.count("--take-over") == 1
    checks = json.loads(second.hq("doctor", "--json", check=False))["checks"]
    found = {check["check"]: (check["verdict"], check["todo"]) for check in checks}
    assert found["daemon"] == found["head"]
    assert found["daemon"][0] == "fail"
    assert "--take-over" in found["daemon"][1]
    publish(chain, 50, "ours still")
    chain.store("s", "emit", "sale.total", "1", check=True)
    until(lambda: products(chain) == [("ours still", 50)], "the store hears of its own HQ as before")
    until(lambda: '"sale.total"' in chain.hq("inbox", "--ndjson").stdout, "its entry came to its own HQ")
    assert second.hq("inbox", "--ndjson") == ""
    assert second.process.running
    assert chain.hq("status", "--json").stdout.count('"foreign": {}') == 1
    chain.hq_run.stop()
    clear_heads(chain)
    until(lambda: not second.status()["foreign"], "it goes on by itself when the heads are gone")
    until(lambda: products(chain) == [("from the second", 3)], "the store follows it")


def test_take_over_is_the_word_and_silences_the_other(chain: Chain, second: SecondHq) -> None:
    chain.hq_run.start()
    publish(chain, 50, "ours")
    chain.add_store("s")
    chain.wait_equal("s")
    second.start("--take-over")
    until(lambda: products(chain) == [("from the second", 3)], "the store follows the second")
    until(lambda: "heads.foreign" in chain.hq_run.log.read_text(), "the first says that it is silent")
    publish(chain, 50, "ours again")
    second.process.stop()
    second.start()
    second.hq("publish", "product", "sku=0", "name=from the second", "--wait")
    assert second.status()["foreign"] == {}
    second.process.stop()
    chain.hq_run.stop()
    chain.hq_run.start()
    until(lambda: chain.hq_run.log.read_text().count("heads.foreign") == 2, "it is silent again")
    assert products(chain) == [("from the second", 3)]


def test_a_master_that_was_lost_and_made_anew_is_silent_until_its_copy_is_back(chain: Chain) -> None:
    chain.hq_run.start()
    publish(chain, 50, "ours")
    chain.add_store("s")
    chain.wait_equal("s")
    chain.hq("backup", str(chain.directory / "copy.db"))
    publish(chain, 50, "ours later")
    chain.wait_published()
    chain.hq_run.stop()
    (chain.directory / "hq.db").unlink()
    chain.hq("init")
    chain.hq_run.start()
    until(lambda: "heads.foreign" in chain.hq_run.log.read_text(), "the new one is silent")
    assert products(chain) == [("ours later", 50)]
    chain.hq_run.stop()
    chain.hq("restore", str(chain.directory / "copy.db"))
    chain.hq_run.start()
    until(lambda: products(chain) == [("ours", 50)], "the copy needs no word")
    chain.wait_equal("s")
    assert chain.hq_run.log.read_text().count("heads.foreign") == 1
