"""Many stores: all catching up at once from the broker alone, and what they cost HQ while they listen."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, Self

from bench.measures.site import Site
from bench.report import Figure, at_most, middle, told
from hq.core.changes import Change
from hq.master.store import Master
from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream
from testbed.feeds import Grocery
from testbed.mqtt_client import Client, Loop
from testbed.mqtt_packets import Publish
from testbed.process import Process, StepFailed, environment

PRICES = Stream.parse("price/all", BUILT_IN)
SET, SETS, SETS_PER_S = 50, 200, 100
WAIT_S = 150.0
SYS_INTERVAL_S = 1
"""How often the broker says what it has dropped; see testbed.broker."""


def measure_fleet(grocery: Grocery, stores: int, runs: int) -> list[Figure]:
    """Light stores against plain subscribers of the same client code, in turn, with HQ switched off."""
    with Site() as site:
        site.start_hq()
        site.import_all(grocery)
        site.wait_all_published()
        site.stop_hq()
        bytes_each = _kept_bytes(site.broker.port)
        light, plain, hashing = [], [], []
        says = site.broker.name == "mosquitto"  # rumqttd has no such topic
        before = _dropped(site.broker.port) if says else 0
        for _ in range(runs):
            with _Clients(site, "plain", stores, "--bytes-each", str(bytes_each)) as clients:
                plain.append(clients.outcome["seconds"])
            with _Clients(site, "plain", stores, "--bytes-each", str(bytes_each), "--hashes") as clients:
                hashing.append(clients.outcome["seconds"])
            with _Clients(site, "light", stores) as clients:
                light.append(clients.outcome["seconds"])
                if clients.outcome["rejected"]:
                    raise StepFailed(f"{clients.outcome['rejected']} segments were not what the head promised")
        time.sleep(2 * SYS_INTERVAL_S)
        dropped = _dropped(site.broker.port) - before if says else None
    ratio = _ratio(light, plain)
    mb_per_s = stores * bytes_each / middle(plain) / 1e6
    limit = f"plain subscribers {middle(plain):.2f} s"
    return [
        Figure(f"fleet: {stores} stores catch up at once", middle(light), "s", limit, ratio, 2.0, False),
        told("fleet: against subscribers that hash, too", _ratio(light, hashing), "x", f"{middle(hashing):.2f} s"),
        *([] if dropped is None else [at_most("fleet: messages dropped by the broker", dropped, "messages", 0)]),
        told("fleet: the broker's rate to plain subscribers", mb_per_s, "MB/s", f"{bytes_each / 1e6:.2f} MB each"),
    ]


def _ratio(ours: list[float], limit: list[float]) -> float:
    return middle([a / b for a, b in zip(ours, limit, strict=True)])


def measure_hq_cost(grocery: Grocery, stores: int, runs: int) -> list[Figure]:
    """CPU time of `hq run` for 10,000 changes while one and while many stores listen, in turn."""
    with Site() as site:
        hq = site.start_hq()
        site.import_all(grocery)
        site.wait_all_published()
        skus = list(grocery.prices)
        one: list[float] = []
        many: list[float] = []
        for run in range(runs):
            for count, taken in ((1, one), (stores, many)):
                with _Clients(site, "light", count, "--stay") as clients:
                    taken.append(_cpu_of_changes(site, hq, skus, 2 * run + (count > 1)))
                    clients.hear_to(site.heads()[str(PRICES)])
    ratio = middle([b / a for a, b in zip(one, many, strict=True)])
    name = f"HQ's CPU for {SET * SETS:,} changes, {stores} stores listening"
    return [Figure(name, middle(many), "s", f"1 store: {middle(one):.2f} s", ratio, 1.1, False)]


def _cpu_of_changes(site: Site, hq: Process, skus: list[str], turn: int) -> float:
    before = hq.usage().cpu_s
    with Master(site.master_path, BUILT_IN) as master:
        began_s = time.monotonic()
        for index in range(SETS):
            time.sleep(max(0.0, began_s + index / SETS_PER_S - time.monotonic()))
            schedule = f"[[1764000000,null,{20_000_000 + turn}]]"
            some = skus[index * SET : (index + 1) * SET]
            done = master.commit(PRICES, [Change((sku, "regular"), ("EUR", schedule)) for sku in some], 1)
            if done.events != SET:
                raise StepFailed(f"{done.events} of {SET} prices changed")
    site.wait_all_published()
    return hq.usage().cpu_s - before


class _Clients:
    """`testbed.light_store` as a process: many clients that have caught up when the block begins."""

    def __init__(self, site: Site, kind: str, count: int, *options: str) -> None:
        self.outcome: Mapping[str, Any] = {}
        whom = ["--port", str(site.broker.port), "--count", str(count)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "testbed.light_store", kind, *whom, *options],
            env=environment({}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        self.outcome = self._told("have not caught up")
        return self

    def hear_to(self, seq: int) -> None:
        """Return once every client has heard of this seq of the prices live. Raises StepFailed if one does not."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            print(seq, file=self._process.stdin, flush=True)
        self._told(f"have not heard of {seq}")

    def _told(self, failure: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(WAIT_S)
            raise StepFailed(f"the light clients {failure}: exit code {self._process.returncode}")
        found: dict[str, Any] = json.loads(line)
        return found

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def _kept_bytes(port: int) -> int:
    """Payload bytes of everything that the broker keeps of segments and heads."""
    return sum(len(payload) for payload in _kept(port, ["storenode/segment/#", "storenode/head/#"], "storenode/head/"))


def _dropped(port: int) -> int:
    """How many messages mosquitto says that it has dropped since its start. Raises StepFailed if it does not say."""
    topic = "$SYS/broker/publish/messages/dropped"
    found = _kept(port, [topic], topic)
    if not found:
        raise StepFailed(f"the broker does not say in {topic} what it dropped")
    return int(found[-1])


def _kept(port: int, filters: list[str], last: str) -> list[bytes]:
    """Retained messages of some filters, until none has come for a second after one whose topic begins with `last`."""
    loop, found, heard = Loop(), [], [time.monotonic(), 0.0]

    def take(message: Publish) -> None:
        found.append(bytes(message.payload))
        heard[:] = [time.monotonic(), heard[1] + message.topic.startswith(last)]

    client = Client(loop, port, "bench-kept", take)
    try:
        client.start()
        loop.run(lambda: client.connected, 10.0, "connected")
        client.subscribe(filters)
        heard[0] = time.monotonic()
        loop.run(lambda: time.monotonic() - heard[0] > (1.0 if heard[1] else 3.0), 30.0, "all that is kept")
    finally:
        loop.close()
    return found
