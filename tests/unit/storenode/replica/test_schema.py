"""A replica whose tables or views are not what this version makes of them: a bad disk, or another hand."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream
from storenode.errors import ReplicaDamaged
from storenode.replica import queries, schema
from storenode.replica.writer import Replica


def replica(path: Path) -> Path:
    Replica(path, ("all",), BUILT_IN).connection.close()
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
        queries.check_file(path)
    replica(path)
    queries.check_file(path)


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
        queries.check_file(path)


def test_an_index_that_is_gone_is_found(tmp_path: Path) -> None:
    path = replica(tmp_path / "replica.db")
    change(path, "DROP INDEX products_gtin")
    with pytest.raises(ReplicaDamaged, match="products_gtin"):
        queries.check_file(path)


def test_what_others_add_to_the_file_is_no_damage(tmp_path: Path) -> None:
    path = replica(tmp_path / "replica.db")
    change(path, "CREATE TABLE notes (text)", "CREATE INDEX mine ON products(brand)", "ANALYZE")
    queries.check_file(path)


def test_a_trigger_that_is_not_ours_is_damage(tmp_path: Path) -> None:
    """It would run in the daemon's own transactions."""
    path = replica(tmp_path / "replica.db")
    change(path, "CREATE TRIGGER evil AFTER UPDATE ON streams BEGIN DELETE FROM prices; END")
    with pytest.raises(ReplicaDamaged, match="trigger evil is not ours"):
        queries.check_file(path)


def test_an_upgraded_replica_has_the_shape_of_a_new_one(tmp_path: Path) -> None:
    """Columns that an upgrade adds stand last; that is no damage."""
    path = replica(tmp_path / "replica.db")
    columns = schema.STREAM_COLUMNS_3
    change(path, "DROP TABLE quarantine", *(f"DROP VIEW {view}" for view in ("freshness", "catalog", "current_prices")))
    change(path, *(f"ALTER TABLE streams DROP COLUMN {name}" for name in columns), "PRAGMA user_version = 2")
    replica(path)
    queries.check_file(path)


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
    Replica(path, ("all",), BUILT_IN).connection.close()
    change(path, "INSERT INTO prices (sku, kind, scope, seq) VALUES ('1', 'regular', 'all', 1)")
    change(path, *(f"DROP VIEW {view}" for view in ("catalog", "current_prices")), damage)
    with pytest.raises(ReplicaDamaged):
        queries.scan(path, Stream.parse("price/all", BUILT_IN))
