"""A replica, and one whose daemon is at work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storelink.contract.contexts import BUILT_IN
from storelink.host.locks import lock_instance
from storenode.replica.writer import Replica
from tests.unit.storenode.commands.store import LINE, MILK, PRICE, PRODUCT, beat, put


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    replica = Replica.open(tmp_path / "replica.db", ("all", "price/zone-west"), BUILT_IN)
    yield replica
    replica.connection.close()


@pytest.fixture
def live(replica: Replica) -> Iterator[Replica]:
    """A replica whose daemon is at work: it holds the lock, both main streams are live."""
    put(replica, PRICE, LINE)
    put(replica, PRODUCT, MILK)
    beat(replica)
    lock = lock_instance(Path(f"{replica.path}.lock"))
    assert lock is not None
    with lock:
        yield replica
