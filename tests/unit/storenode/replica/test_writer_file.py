"""The replica's file: opening, following other scopes, damage, and what a clean stop leaves for tills."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from storelink.contract.contexts import BUILT_IN
from storelink.contract.rows import EMPTY
from storelink.contract.streams import Stream
from storenode.errors import ReplicaBusy, ReplicaDamaged, ReplicaUnwritable
from storenode.replica.writer import WAL_KEPT_BYTES_MAX, Replica

PRICE_ROW = (1, "1", "regular", "EUR", "[[0,null,5]]")
PRODUCT_ROW = (1, "1", None, "Milk", *(None,) * 10)


def fill(replica: Replica, stream: str) -> None:
    row = PRICE_ROW if stream.startswith("price") else PRODUCT_ROW
    replica.apply(
        Stream.parse(stream, BUILT_IN),
        epoch="e",
        position=1,
        digest=EMPTY,
        head_seq=1,
        batches=[([row], [])],
        replace=False,
        wall_ms=0,
    )


def content(path: Path) -> dict[str, list[str]]:
    db = sqlite3.connect(path)
    try:
        found = {t: [s for (s,) in db.execute(f"SELECT scope FROM {t} ORDER BY scope")] for t in ("products", "prices")}
        return found | {"streams": [s for (s,) in db.execute("SELECT stream FROM streams ORDER BY stream")]}
    finally:
        db.close()


def test_opening_again_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "replica.db"
    for _ in range(2):
        replica = Replica.open(path, ("all",), BUILT_IN)
        if replica.state(Stream.parse("price/all", BUILT_IN)).epoch is None:
            fill(replica, "price/all")
        replica.connection.close()
    assert content(path) == {"products": [], "prices": ["all"], "streams": ["price/all", "product/all"]}


def test_a_scope_no_longer_followed_takes_its_rows_along(tmp_path: Path) -> None:
    path = tmp_path / "replica.db"
    replica = Replica.open(path, ("all", "zone-west"), BUILT_IN)
    for stream in ("price/all", "price/zone-west", "product/zone-west"):
        fill(replica, stream)
    replica.connection.close()
    replica = Replica.open(path, ("all", "store-7"), BUILT_IN)
    for stream in ("product/all", "price/store-7", "product/store-7"):
        fill(replica, stream)
    assert replica.remove_unfollowed(()) == (["price/zone-west", "product/zone-west"], [])
    replica.connection.close()
    assert content(path) == {
        "products": ["all", "store-7"],
        "prices": ["all", "store-7"],
        "streams": ["price/all", "price/store-7", "product/all", "product/store-7"],
    }


def test_a_context_no_longer_followed_in_a_scope_takes_its_rows_along(tmp_path: Path) -> None:
    """`zone-west` became `price/zone-west`: products of the zone would have gone on winning, never renewed."""
    path = tmp_path / "replica.db"
    replica = Replica.open(path, ("all", "zone-west"), BUILT_IN)
    for stream in ("product/all", "price/zone-west", "product/zone-west"):
        fill(replica, stream)
    replica.connection.close()
    Replica.open(path, ("all", "price/zone-west"), BUILT_IN).connection.close()
    assert content(path) == {
        "products": ["all"],
        "prices": ["zone-west"],
        "streams": ["price/all", "price/zone-west", "product/all"],
    }


def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "replica.db"
    path.write_bytes(b"not a database, not at all; " * 200)
    with pytest.raises(ReplicaDamaged, match="not a database") as caught:
        Replica.open(path, ("all",), BUILT_IN)
    assert "moves it away" in caught.value.hint
    assert path.read_bytes().startswith(b"not a database")


def test_somebody_elses_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "replica.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE prices (mine)")
    other.commit()
    other.close()
    with pytest.raises(ReplicaDamaged, match="is not a replica"):
        Replica.open(path, ("all",), BUILT_IN)
    check = sqlite3.connect(path)
    assert check.execute("SELECT name FROM sqlite_master").fetchall() == [("prices",)]
    check.close()


def test_a_directory_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ReplicaUnwritable):
        Replica.open(tmp_path / "nowhere" / "replica.db", ("all",), BUILT_IN)


def test_a_lock_held_by_another_program_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "replica.db"
    Replica.open(path, ("all",), BUILT_IN).connection.close()
    monkeypatch.setattr("storenode.replica.writer.BUSY_TIMEOUT_S", 0.01)
    rival = sqlite3.connect(path, isolation_level=None)
    rival.execute("BEGIN IMMEDIATE")
    with pytest.raises(ReplicaBusy):
        Replica.open(path, ("all",), BUILT_IN)
    rival.close()


def test_a_reader_that_stays_blocks_neither_writer_nor_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "replica.db"
    replica = Replica.open(path, ("all",), BUILT_IN)
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM prices").fetchone() == (0,)
    fill(replica, "price/all")
    replica.checkpoint()
    replica.close_for_readers()
    assert reader.execute("SELECT count(*) FROM prices").fetchone() == (0,)
    reader.close()
    replica.connection.close()


def test_the_log_shrinks_again_after_a_large_transaction(tmp_path: Path) -> None:
    replica = Replica.open(tmp_path / "replica.db", ("all",), BUILT_IN)
    stream = Stream.parse("product/all", BUILT_IN)
    rows = [(n, str(n), None, "x" * 1000, *(None,) * 10) for n in range(1, 6_001)]
    replica.apply(
        stream, epoch="e", position=6_000, digest=EMPTY, head_seq=6_000, batches=[(rows, [])], replace=False, wall_ms=0
    )
    assert replica.wal_bytes() > WAL_KEPT_BYTES_MAX
    replica.checkpoint()
    replica.note(stream, state="live", head_seq=6_000, as_of_ms=1)
    assert replica.wal_bytes() <= WAL_KEPT_BYTES_MAX
    replica.connection.close()


STOP = """
import os, sys
from pathlib import Path
from storelink.contract.contexts import BUILT_IN
from storenode.replica.writer import Replica
Replica.open(Path(sys.argv[1]), ("all",), BUILT_IN).close_for_readers()
os._exit(0)
"""

READ = """
import os, sqlite3, sys
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
print(sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True).execute("SELECT count(*) FROM catalog").fetchone()[0])
"""


def test_after_a_clean_stop_a_till_that_may_not_write_can_read(tmp_path: Path) -> None:
    """A last close removes -wal and -shm, and then a reader without write access cannot open the file at all."""
    path = tmp_path / "replica.db"
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.getuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
        if directory.name.startswith("pytest-of-"):
            break
    subprocess.run([sys.executable, "-c", STOP, path], check=True, env=os.environ | {"PYTHONPATH": os.getcwd()})
    assert {p.name for p in tmp_path.iterdir()} == {"replica.db", "replica.db-wal", "replica.db-shm"}
    tmp_path.chmod(0o555)
    try:
        found = subprocess.run(
            [sys.executable, "-I", "-c", READ, path], check=False, capture_output=True, text=True, cwd="/"
        )
    finally:
        tmp_path.chmod(0o755)
    assert (found.stdout, found.returncode) == ("0\n", 0), found.stderr


def test_the_heartbeat_is_one_row_of_facts(tmp_path: Path) -> None:
    replica = Replica.open(tmp_path / "replica.db", ("all",), BUILT_IN)
    for now_ms in (5, 6):
        replica.heartbeat(
            store_id="store-7", pid=4, connected=True, started_at_ms=5, counters={"rows": now_ms}, wall_ms=now_ms
        )
    found = replica.connection.execute("SELECT * FROM daemon").fetchall()
    assert found == [(1, "store-7", 4, 1, 5, 6, json.dumps({"rows": 6}))]
    replica.connection.close()
