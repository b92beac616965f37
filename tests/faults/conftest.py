"""What the torture tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.acts.scenes import Props
from tests.faults.acts.stage import Stage
from tests.faults.chaos import Site
from tests.faults.scale import SCALE, SEED


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as found:
        yield found


@pytest.fixture(scope="module")
def props(stage: Stage) -> Iterator[Props]:
    found = Props(stage)
    yield found
    found.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"tests/faults: TORTURE_SEED={SEED} TORTURE_SCALE={SCALE:g}")
