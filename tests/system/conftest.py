from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.site import Site
from tests.system.tree import NotToBeHad


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One container for the whole suite. SYSTEM_TESTS=required turns what is missing into a failure."""
    # Not below pytest's own directory: that keeps the last three, and this one is hundreds of megabytes.
    with tempfile.TemporaryDirectory(prefix="storenode-system-") as directory:
        site = Site(Path(directory), tmp_path_factory.mktemp("system") / "console.log")
        try:
            try:
                site.build()
            except NotToBeHad as missing:
                if os.environ.get("SYSTEM_TESTS") == "required":
                    raise
                pytest.skip(f"no container: {missing}")
            site.install()
            yield site
        finally:
            site.container.close()


@pytest.fixture
def site(installed: Site) -> Iterator[Site]:
    """The installed site, live; each test leaves it so."""
    installed.wait_live()
    yield installed
    installed.wait_live()
