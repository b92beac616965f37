"""What SQLite's errors mean, each caused for real; and opening without a right to write."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from storelink.host.sqlite import Trouble, insert, is_damage, open_file, open_readonly, trouble_of

PAGE_BYTES = 4_096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a file?.db"
    with closing(open_file(path, "rwc", 1.0)) as db:
        db.execute("CREATE TABLE t (a TEXT)")
        db.execute("INSERT INTO t VALUES ('x')")
    return path


def damaged(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:PAGE_BYTES] + b"\xff" * (len(content) - PAGE_BYTES))
    with closing(open_readonly(path, 0.0)) as db:
        db.execute("SELECT * FROM t").fetchall()


def no_database(path: Path) -> None:
    path.write_bytes(b"no database" * 100)
    with closing(open_readonly(path, 0.0)) as db:
        db.execute("SELECT * FROM t").fetchall()


def misfit(path: Path) -> None:
    with closing(open_readonly(path, 0.0)) as db:
        db.execute("SELECT b FROM t")


def busy(path: Path) -> None:
    with closing(open_file(path, "rw", 0.0)) as one, closing(open_file(path, "rw", 0.0)) as other:
        one.execute("BEGIN IMMEDIATE")
        other.execute("BEGIN IMMEDIATE")


def full(path: Path) -> None:
    with closing(open_file(path, "rw", 0.0)) as db:
        db.execute("PRAGMA max_page_count = 2")
        db.execute("INSERT INTO t VALUES (?)", ("x" * 100_000,))


def read_only(path: Path) -> None:
    with closing(open_readonly(path, 0.0)) as db:
        db.execute("INSERT INTO t VALUES ('y')")


def missing(path: Path) -> None:
    open_file(path.with_name("none.db"), "rw", 0.0)


def no_text(path: Path) -> None:
    with closing(open_file(path, "rw", 0.0)) as db:
        db.execute("INSERT INTO t VALUES (CAST(x'ff' AS TEXT))")
        db.execute("SELECT a FROM t").fetchall()


def closed(path: Path) -> None:
    db = open_readonly(path, 0.0)
    db.close()
    db.execute("SELECT 1")


@pytest.mark.parametrize(
    ("cause", "trouble"),
    [
        (damaged, Trouble.DAMAGED),
        (no_text, Trouble.DAMAGED),
        (no_database, Trouble.NO_DATABASE),
        (misfit, Trouble.MISFIT),
        (busy, Trouble.BUSY),
        (full, Trouble.FULL),
        (read_only, Trouble.READ_ONLY),
        (missing, Trouble.CANNOT_OPEN),
        (closed, Trouble.OTHER),
    ],
)
def test_an_error_is_what_it_means_for_the_file(path: Path, cause: Callable[[Path], None], trouble: Trouble) -> None:
    with pytest.raises(sqlite3.Error) as caught:
        cause(path)
    assert trouble_of(caught.value) is trouble
    assert is_damage(caught.value) is (trouble in (Trouble.DAMAGED, Trouble.NO_DATABASE))


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 100])
def test_many_rows_are_inserted_as_they_are(path: Path, count: int) -> None:
    rows = [(f"r{number}",) for number in range(count)]
    with closing(open_file(path, "rw", 0.0)) as db:
        db.execute("DELETE FROM t")
        insert(db, "t", ("a",), rows)
        assert db.execute("SELECT a FROM t ORDER BY rowid").fetchall() == rows
