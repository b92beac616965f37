"""What the tests with real processes share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.chain import Chain


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """A broker, an HQ that is not running yet, and no store; all end with the test."""
    found = Chain(tmp_path)
    yield found
    found.close()
