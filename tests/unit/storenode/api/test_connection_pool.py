"""A warm connection: one snapshot a question, a deadline, nothing that writes, and good again after every failure."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from storelink.contract.contexts import BUILT_IN
from storenode.api.connection_pool import WarmConnection
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
def warm(replica: Replica) -> Iterator[WarmConnection]:
    warm = WarmConnection(replica.path)
    yield warm
    warm.close()


def soon() -> float:
    return time.monotonic() + 20


def scopes(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM scopes").fetchone()[0])


def test_a_question_is_answered_from_one_snapshot_and_the_next_one_sees_what_is_new(
    warm: WarmConnection, replica: Replica
) -> None:
    def twice(db: sqlite3.Connection) -> tuple[int, int]:
        before = scopes(db)
        replica.connection.execute("INSERT INTO scopes VALUES('zone', 1)")
        return before, scopes(db)

    assert warm.ask(twice, soon()) == (1, 1)
    assert warm.ask(scopes, soon()) == 2


def test_an_endless_question_ends_at_its_deadline_and_the_connection_goes_on(warm: WarmConnection) -> None:
    with pytest.raises(TookTooLong):
        warm.ask(lambda db: db.execute(ENDLESS).fetchone(), time.monotonic() + 0.05)
    assert warm.ask(scopes, soon()) == 1


def test_a_question_whose_deadline_has_passed_is_not_asked(warm: WarmConnection) -> None:
    asked: list[int] = []
    with pytest.raises(TookTooLong):
        warm.ask(lambda db: asked.append(1), time.monotonic() - 1)
    assert asked == []


@pytest.mark.parametrize("sql", ["DELETE FROM scopes", "CREATE TABLE t(x)", "ATTACH ':memory:' AS other"])
def test_nothing_can_be_written_or_attached(warm: WarmConnection, sql: str) -> None:
    with pytest.raises((ReplicaUnwritable, ReplicaDamaged)):
        warm.ask(lambda db: db.execute(sql), soon())
    assert warm.ask(scopes, soon()) == 1


def test_an_error_of_the_question_leaves_no_snapshot_open(warm: WarmConnection, replica: Replica) -> None:
    def fail(db: sqlite3.Connection) -> None:
        scopes(db)
        raise ValueError

    with pytest.raises(ValueError):
        warm.ask(fail, soon())
    replica.connection.execute("INSERT INTO scopes VALUES('zone', 1)")
    replica.checkpoint(truncate=True)
    assert replica.wal_bytes() == 0, "nobody holds the log"


def test_a_file_that_takes_the_name_is_opened_and_one_that_is_none_is_refused(
    warm: WarmConnection, replica: Replica
) -> None:
    assert warm.ask(scopes, soon()) == 1
    for suffix in ("-wal", "-shm", ""):
        Path(f"{replica.path}{suffix}").rename(f"{replica.path}.old{suffix}")
    with pytest.raises(ReplicaMissing):
        warm.ask(scopes, soon())
    other = Replica.open(replica.path, ("all", "zone"), BUILT_IN)
    assert warm.ask(scopes, soon()) == 2
    other.connection.close()
    replica.path.unlink()
    sqlite3.connect(replica.path).close()
    with pytest.raises(ReplicaDamaged):
        warm.ask(scopes, soon())
