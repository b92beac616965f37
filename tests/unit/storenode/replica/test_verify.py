"""A replica whose tables or views are not what this version makes of them: a bad disk, or another hand."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream
from storenode.errors import ReplicaDamaged
from storenode.replica import schema, verify
from storenode.replica.file import replace_damaged
from storenode.replica.writer import Replica


def replica(path: Path) -> Path:
    Replica.open(path, ("all",), BUILT_IN).connection.close()
    return path


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def test_a_view_of_another_text_is_what_it_was_after_the_next_start(tmp_path: Path) -> None:
    """One flipped bit turned `rank DESC` into something else: tills saw the wrong price, and every digest was right."""
    path = replica(tmp_path / "replica.db")
    change(path, "DROP VIEW current_prices", "CREATE VIEW current_prices AS SELECT sku, 1 AS amount_minor FROM prices")
    with pytest.raises(ReplicaDamaged, match="current_prices is not as it was made"):
        verify.check_file(path)
    replica(path)
    verify.check_file(path)


@pytest.mark.parametrize(
    ("was", "now"), [('"schedule" TEXT', '"schedule" TEXU'), ('"kind" TEXT NOT NULL', '"kind" TEXT NOT  ULL')]
)
def test_a_table_of_another_shape_is_found(was: str, now: str, tmp_path: Path) -> None:
    """A column that is no TEXT any more makes numbers of what is written next; no fetching anew would heal it."""
    path = replica(tmp_path / "replica.db")
    change(
        path,
        "PRAGMA writable_schema = ON",
        f"UPDATE sqlite_master SET sql = replace(sql, '{was}', '{now}') WHERE name = 'prices'",
    )
    with pytest.raises(ReplicaDamaged, match="sound replica"):
        verify.check_file(path)


def test_an_index_that_is_gone_is_found(tmp_path: Path) -> None:
    path = replica(tmp_path / "replica.db")
    change(path, "DROP INDEX products_gtin")
    with pytest.raises(ReplicaDamaged, match="products_gtin"):
        verify.check_file(path)


def test_what_others_add_to_the_file_is_no_damage(tmp_path: Path) -> None:
    path = replica(tmp_path / "replica.db")
    change(path, "CREATE TABLE notes (text)", "CREATE INDEX mine ON products(brand)", "ANALYZE")
    verify.check_file(path)


def test_a_trigger_that_is_not_ours_is_damage(tmp_path: Path) -> None:
    """It would run in the daemon's own transactions."""
    path = replica(tmp_path / "replica.db")
    change(path, "CREATE TRIGGER evil AFTER UPDATE ON streams BEGIN DELETE FROM prices; END")
    with pytest.raises(ReplicaDamaged, match="trigger evil is not ours"):
        verify.check_file(path)


@pytest.mark.parametrize("version", [schema.VERSION - 1, schema.VERSION + 1])
def test_a_replica_of_another_format_is_replaced_and_serves_who_has_it_open(tmp_path: Path, version: int) -> None:
    path = replica(tmp_path / "replica.db")
    change(path, "INSERT INTO scopes VALUES ('till', 5)", f"PRAGMA user_version = {version}")
    with closing(sqlite3.connect(path)) as till:
        asked = "SELECT rank FROM scopes WHERE scope = 'till'"
        assert till.execute(asked).fetchone() == (5,)
        with pytest.raises(
            ReplicaDamaged, match=f"format {version}; this storenode has format {schema.VERSION}"
        ) as caught:
            replica(path)
        assert caught.value.hint == "storenode run moves it away and fetches a new one"
        replace_damaged(path, datetime(2026, 1, 2, tzinfo=UTC), caught.value, served_here=False)
        replica(path)
        assert till.execute(asked).fetchone() == (5,)
    with closing(sqlite3.connect(path)) as new:
        assert new.execute(asked).fetchone() is None
    verify.check_file(path)
    assert (tmp_path / "replica.db.damaged-20260102T000000.000000Z").exists()


@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE prices RENAME COLUMN schedule TO schedulf",
        "UPDATE prices SET schedule = CAST(X'5B5BEA' AS TEXT)",
    ],
)
def test_what_no_statement_of_ours_can_read_is_damage_not_a_full_disk(damage: str, tmp_path: Path) -> None:
    """They were called ReplicaUnwritable, which a daemon tries again for ever."""
    path = tmp_path / "replica.db"
    Replica.open(path, ("all",), BUILT_IN).connection.close()
    change(path, "INSERT INTO prices (sku, kind, scope, seq) VALUES ('1', 'regular', 'all', 1)")
    change(path, *(f"DROP VIEW {view}" for view in ("catalog", "current_prices")), damage)
    with pytest.raises(ReplicaDamaged):
        verify.scan(path, Stream.parse("price/all", BUILT_IN))
