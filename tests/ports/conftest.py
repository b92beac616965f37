"""The port suite's fixtures: every implementation in turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.broker import MOSQUITTO, free_port, start_mosquitto, start_rumqttd
from tests.ports.rigs import MemoryRig, RealRig, Rig

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


@pytest.fixture(params=["memory", "rumqttd", pytest.param("mosquitto", marks=needs_mosquitto)])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    if request.param == "memory":
        yield MemoryRig()
        return
    start = start_rumqttd if request.param == "rumqttd" else start_mosquitto
    with start(tmp_path, free_port()) as broker:
        real = RealRig(broker)
        try:
            yield real
        finally:
            real.close()
