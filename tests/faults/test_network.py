"""Lines that are cut, cut one way, reset, lossy, or swallow large packets: noticed, nothing lost, level soon after.

Every store has a network namespace of its own; all are broken at once, each in another way.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from storelink.transport.mqtt import MqttLink
from testbed.broker import MOSQUITTO, Broker
from testbed.network import RULES, Hub, NotPossible
from testbed.process import BIN, Process, until
from tests.faults.chaos import CAUGHT_UP_S, Load, Site, Traffic, connected, figures, saboteur
from tests.faults.scale import SCALE, SEED, scaled

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

KEEPALIVE_S = 15
POLL_S = 1.0
"""How often the link looks at its clock, and this test at the log, at most."""

WAVES = scaled(5)
LONGEST_S = 4.0 if SCALE <= 1 else 30.0
SILENT = ("cut", "cut up", "cut down", "black hole")
"""Faults of which nothing tells but silence."""


class Network(Site):
    """A site whose broker and HQ are in the hub, and whose stores each have a namespace."""

    def __init__(self, directory: Path, hub: Hub) -> None:
        self.hub = hub
        self.spaces: dict[str, str] = {}
        super().__init__(directory)
        self.hq_run = self.daemon([*hub.inside(hub.name), str(BIN / "hq"), "run"], self.hq_environ(), "hq")

    def make_broker(self) -> Broker:
        assert MOSQUITTO is not None
        config = self.directory / "mosquitto.conf"
        config.write_text(
            f"user root\nlistener {self.port} 0.0.0.0\nallow_anonymous true\nset_tcp_nodelay true\n"
            "max_queued_messages 20000\nlog_dest stderr\n"
        )
        command = [*self.hub.inside(self.hub.name), MOSQUITTO, "-c", str(config)]
        return HubBroker("mosquitto", command, self.directory, self.port)

    def add_to_network(self, name: str, sabotage: str | None = None) -> Process:
        self.spaces[name], address = self.hub.join(len(self.spaces) + 1)
        self.replica(name).parent.mkdir()
        own = [str(BIN / "storenode"), "run"] if sabotage is None else saboteur(sabotage, "storenode", "run")
        environ = self.hq_environ() | {
            "STORENODE_DB": str(self.replica(name)),
            "STORENODE_STORE_ID": name,
            "STORENODE_BROKER": f"mqtt://{address}:{self.port}",
        }
        self.stores[name] = self.daemon([*self.hub.inside(self.spaces[name]), *own], environ, name)
        self.stores[name].start()
        return self.stores[name]


class HubBroker(Broker):
    """A mosquitto that this process cannot reach; its log says when it runs."""

    def answers(self) -> bool:
        return "running" in self.log.read_text()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    try:
        hub = Hub()
    except NotPossible as reason:
        pytest.skip(f"no network namespaces here: {reason}")
    found = None
    try:
        found = Network(tmp_path, hub)
        yield found
    except NotPossible as reason:
        pytest.skip(f"no namespaces with rules here: {reason}")
    finally:
        if found is not None:
            found.close()
        hub.close()


def test_every_broken_line_is_noticed_and_loses_nothing_and_is_level_after_healing(
    network: Network, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also the control: a store that never asks whether its line lives must not be found to notice."""
    rng, faults = random.Random(SEED), list(RULES)
    assert MqttLink.__init__.__defaults__ == (None, KEEPALIVE_S)
    network.hq_run.start()
    names = [f"s{n}" for n in range(len(faults))]
    for name in names:
        network.add_to_network(name)
    network.add_to_network("careless", sabotage="no_keepalive")
    for name in (*names, "careless"):
        until(lambda name=name: connected(network.replica(name)), f"{name} is connected")  # type: ignore[misc]
    cases, worst_s = 0, 0.0
    with ExitStack() as stack:
        load = Load(network, per_s=60)
        traffics = [Traffic(network, name, per_s=5.0) for name in names]
        for loop in (load, *traffics):
            stack.enter_context(loop)
        for wave in range(WAVES):
            broken = {name: faults[(wave + n) % len(faults)] for n, name in enumerate(names)}
            for name, fault in broken.items():
                network.hub.break_line(network.spaces[name], fault)
            time.sleep(rng.uniform(1.0, LONGEST_S))
            worst_s = max(worst_s, healed_s(network, load, names, f"wave {wave}: {broken}"))
            cases += len(broken)
        noticed_s = silence_noticed_s(network, names)
        worst_s = max(worst_s, healed_s(network, load, names, "after the long silence"))
        for traffic in traffics:
            traffic.hold()
        for name in names:
            network.wait_sent(name)
            assert network.inbox_verdict(name).ok, name
    cases += len(SILENT)
    figures(
        capfd,
        f"network: {cases} broken lines ({', '.join(faults)}), 1-{LONGEST_S:g} s, {len(SILENT)} for as long as they"
        f" took to notice: {noticed_s:.1f} s of {2 * KEEPALIVE_S}; level within {worst_s:.1f} s of healing;"
        f" {network.model.head} changes to each of {len(names)} stores, 0 lost, 0 double",
    )


def healed_s(network: Network, load: Load, names: list[str], what: str) -> float:
    """Heal every line and wait until all stores hold what the model does, the load held; returns the seconds."""
    for space in network.spaces.values():
        network.hub.heal(space)
    began_s = time.monotonic()
    load.hold()
    for name in names:
        left_s = max(0.1, CAUGHT_UP_S - (time.monotonic() - began_s))
        until(lambda name=name: network.verdict(name).ok, f"{what}: {name} is level", left_s)  # type: ignore[misc]
    load.go_on()
    return time.monotonic() - began_s


def silence_noticed_s(network: Network, names: list[str]) -> float:
    """Break lines so that only silence tells; returns the longest time until a store says so.

    The one without keepalive must not."""
    broken = dict(zip((*names, "careless"), (*SILENT, *[""] * (len(names) - len(SILENT)), "cut"), strict=True))
    before = {name: lines_lost(network, name) for name in broken}
    began_s = time.monotonic()
    for name, fault in broken.items():
        if fault:
            network.hub.break_line(network.spaces[name], fault)
    network.desk({f"large-{n}": n for n in range(2_000)})  # what does not pass a black hole
    for name in [n for n, fault in broken.items() if fault and n != "careless"]:
        left_s = max(0.1, 2 * KEEPALIVE_S + POLL_S - (time.monotonic() - began_s))
        until(lambda n=name: lines_lost(network, n) > before[n], f"{name} notices: {broken[name]}", left_s)  # type: ignore[misc]
    assert lines_lost(network, "careless") == before["careless"], "the control noticed: then nothing is proven"
    return time.monotonic() - began_s


def lines_lost(network: Network, name: str) -> int:
    return network.stores[name].log.read_text().count("line.lost")
