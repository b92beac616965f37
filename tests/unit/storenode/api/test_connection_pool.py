"""A pooled connection: one snapshot a query, a deadline, nothing that writes, and good again after every failure."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from storelink.contract.contexts import BUILT_IN
from storenode.api.connection_pool import PooledConnection
from storenode.api.problems import TookTooLong
from storenode.errors import ReplicaDamaged, ReplicaMissing, ReplicaUnwritable
from storenode.replica.writer import Replica

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    replica = Replica.open(tmp_path / "replica.db", ("all",), BUILT_IN)
    yield replica
    replica.connection.close()


@pytest.fixture
def pooled(replica: Replica) -> Iterator[PooledConnection]:
    pooled = PooledConnection(replica.path)
    yield pooled
    pooled.close()


def soon() -> float:
    return time.monotonic() + 20


def scopes(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM scopes").fetchone()[0])


def test_a_query_runs_in_one_snapshot_and_the_next_one_sees_what_is_new(
    pooled: PooledConnection, replica: Replica
) -> None:
    def twice(db: sqlite3.Connection) -> tuple[int, int]:
        before = scopes(db)
        replica.connection.execute("INSERT INTO scopes VALUES('zone', 1)")
        return before, scopes(db)

    assert pooled.run(twice, soon()) == (1, 1)
    assert pooled.run(scopes, soon()) == 2


def test_an_endless_query_ends_at_its_deadline_and_the_connection_goes_on(pooled: PooledConnection) -> None:
    with pytest.raises(TookTooLong):
        pooled.run(lambda db: db.execute(ENDLESS).fetchone(), time.monotonic() + 0.05)
    assert pooled.run(scopes, soon()) == 1


def test_a_query_whose_deadline_has_passed_is_not_run(pooled: PooledConnection) -> None:
    ran: list[int] = []
    with pytest.raises(TookTooLong):
        pooled.run(lambda db: ran.append(1), time.monotonic() - 1)
    assert ran == []


@pytest.mark.parametrize("sql", ["DELETE FROM scopes", "CREATE TABLE t(x)", "ATTACH ':memory:' AS other"])
def test_nothing_can_be_written_or_attached(pooled: PooledConnection, sql: str) -> None:
    with pytest.raises((ReplicaUnwritable, ReplicaDamaged)):
        pooled.run(lambda db: db.execute(sql), soon())
    assert pooled.run(scopes, soon()) == 1


def test_an_error_of_the_query_leaves_no_snapshot_open(pooled: PooledConnection, replica: Replica) -> None:
    def fail(db: sqlite3.Connection) -> None:
        scopes(db)
        raise ValueError

    with pytest.raises(ValueError):
        pooled.run(fail, soon())
    replica.connection.execute("INSERT INTO scopes VALUES('zone', 1)")
    replica.checkpoint(truncate=True)
    assert replica.wal_bytes() == 0, "nobody holds the log"


def test_a_file_that_takes_the_name_is_opened_and_one_that_is_none_is_refused(
    pooled: PooledConnection, replica: Replica
) -> None:
    assert pooled.run(scopes, soon()) == 1
    for suffix in ("-wal", "-shm", ""):
        Path(f"{replica.path}{suffix}").rename(f"{replica.path}.old{suffix}")
    with pytest.raises(ReplicaMissing):
        pooled.run(scopes, soon())
    other = Replica.open(replica.path, ("all", "zone"), BUILT_IN)
    assert pooled.run(scopes, soon()) == 2
    other.connection.close()
    replica.path.unlink()
    sqlite3.connect(replica.path).close()
    with pytest.raises(ReplicaDamaged):
        pooled.run(scopes, soon())
