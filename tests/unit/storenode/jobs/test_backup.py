"""Backups: proven before they count, rotated, and restorable; nothing that is there is lost by one that fails."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.rows import to_hex, total
from storelink.contract.streams import Stream
from storelink.contract.upstream import OVERRIDE_SET
from storelink.host.locks import lock_instance
from storenode.cli import main
from storenode.errors import AlreadyRunning, BackupFailed, BackupUnsound, ReplicaDamaged
from storenode.jobs import backup
from storenode.jobs.prune import prune
from storenode.jobs.restore import restore
from storenode.outbox.override_copy import OverrideCopy
from storenode.outbox.overrides import put, withdraw
from storenode.outbox.store import Outbox
from storenode.replica import verify
from storenode.replica.writer import Replica

NOW = datetime(2026, 11, 25, 3, 15, 0, tzinfo=UTC)
ALL = Stream.parse("price/all", BUILT_IN)
NAME = "replica-s-20261125T031500Z.db"


def rows_of(count: int, amount: int) -> list[Row]:
    return [(n, str(n), "regular", "EUR", f"[[0,null,{amount}]]") for n in range(1, count + 1)]


def fill(replica: Replica, count: int, amount: int, *, shift: int = 0) -> None:
    """Prices whose seqs begin behind `shift`, with the digest that HQ would announce."""
    rows: list[Row] = [(int(str(row[0])) + shift, *row[1:]) for row in rows_of(count, amount)]
    replica.apply(
        ALL,
        epoch="e",
        position=shift + count,
        digest=to_hex(total(rows)),
        head_seq=shift + count,
        batches=[(rows, [])],
        replace=False,
        wall_ms=0,
    )


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    (tmp_path / "store").mkdir()
    replica = Replica.open(tmp_path / "store" / "replica.db", ("all",), BUILT_IN)
    fill(replica, 500, 100)
    yield replica
    replica.connection.close()


def amounts(path: Path) -> set[int]:
    with closing(sqlite3.connect(path)) as db:
        return {amount for (amount,) in db.execute("SELECT DISTINCT amount_minor FROM current_prices")}


def outbox_of(db: Path) -> Path:
    return db.with_name("outbox.db")


def typed(directory: Path, *words: str) -> Result:
    environ = {
        "STORENODE_DB": str(directory / "store" / "replica.db"),
        "STORENODE_CONFIG": "",
        "STORENODE_STORE_ID": "s",
    }
    return CliRunner().invoke(main, words, env=environ)


def test_a_backup_is_one_file_that_is_a_whole_replica(replica: Replica, tmp_path: Path) -> None:
    made = backup.make(replica.path, BUILT_IN, tmp_path / "backups", "s", 7, NOW)
    assert made.path == tmp_path / "backups" / NAME
    assert (made.positions, made.size_bytes) == ({"price/all": 500}, made.path.stat().st_size)
    assert [p.name for p in made.path.parent.iterdir()] == [NAME], "no parts, no companions"
    assert made.path.stat().st_mode & 0o777 == 0o640
    assert verify.scan(made.path, ALL).ok
    assert amounts(made.path) == {100}


def test_a_backup_made_while_changes_are_applied_is_of_one_moment_and_ends(replica: Replica, tmp_path: Path) -> None:
    """A copy that began anew with every commit of the writer would never end."""
    for number in range(1, 20):
        fill(replica, 500, 100 + number, shift=500 * number)
    stop, applied = threading.Event(), [20]

    def write() -> None:
        own = Replica.open(replica.path, ("all",), BUILT_IN)
        while not stop.is_set():
            fill(own, 500, 100 + applied[0], shift=500 * applied[0])
            applied[0] += 1
        own.connection.close()

    steps = 0

    def go_on() -> bool:
        nonlocal steps
        steps += 1
        return True

    writer = threading.Thread(target=write)
    writer.start()
    monkey = pytest.MonkeyPatch()
    monkey.setattr(backup, "PAGES_PER_STEP", 8)
    try:
        made = backup.make(replica.path, BUILT_IN, tmp_path, "s", 7, NOW, go_on=go_on)
    finally:
        monkey.undo()
        stop.set()
        writer.join()
    (amount,) = amounts(made.path)
    assert made.positions == {"price/all": (amount - 99) * 500}
    assert (applied[0] > 20, steps > 3) == (True, True), "it was copied in steps, under changes"


def test_the_newest_are_kept_and_only_this_stores_own_go(replica: Replica, tmp_path: Path) -> None:
    others = ["replica-t-20200101T000000Z.db", "replica-s-20200101T000000Z.db.old", "notes.txt"]
    for name in others:
        (tmp_path / name).touch()
    for day in range(5):
        made = backup.make(replica.path, BUILT_IN, tmp_path, "s", 3, NOW + timedelta(days=day))
    assert made.dropped == ("replica-s-20261126T031500Z.db",)
    found = sorted(p.name for p in tmp_path.iterdir() if p.is_file())
    assert found == sorted([*others, *(f"replica-s-202611{day}T031500Z.db" for day in (27, 28, 29))])


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        ("UPDATE prices SET schedule = '[[0,null,7]]' WHERE sku = '17'", "not HQ's"),
        ("UPDATE streams SET epoch = NULL", "never been complete"),
    ],
)
def test_a_replica_that_is_not_hqs_makes_no_backup_and_drops_none(
    replica: Replica, tmp_path: Path, break_it: str, reason: str
) -> None:
    kept = backup.make(replica.path, BUILT_IN, tmp_path / "b", "s", 1, NOW).path
    replica.connection.execute(break_it)
    with pytest.raises(BackupFailed, match=reason):
        backup.make(replica.path, BUILT_IN, tmp_path / "b", "s", 1, NOW + timedelta(days=1))
    assert list(kept.parent.iterdir()) == [kept]


def test_a_backup_that_is_stopped_leaves_nothing(replica: Replica, tmp_path: Path) -> None:
    with pytest.raises(BackupFailed, match="it was stopped"):
        backup.make(replica.path, BUILT_IN, tmp_path / "b", "s", 1, NOW, go_on=lambda: False)
    assert list((tmp_path / "b").iterdir()) == []


def test_a_directory_that_cannot_be_written_is_said(replica: Replica, tmp_path: Path) -> None:
    (tmp_path / "b").touch()
    with pytest.raises(BackupFailed, match="File exists"):
        backup.make(replica.path, BUILT_IN, tmp_path / "b", "s", 1, NOW)


def test_too_little_space_is_said_before_anything_is_written(
    replica: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "FREE_BYTES_KEPT", 10**18)
    with pytest.raises(BackupFailed, match="bytes free, a backup needs 1000000"):
        backup.make(replica.path, BUILT_IN, tmp_path / "b", "s", 1, NOW)
    assert list((tmp_path / "b").iterdir()) == []


def test_a_backup_goes_back_into_place_and_the_former_replica_is_moved_away(replica: Replica, tmp_path: Path) -> None:
    made = backup.make(replica.path, BUILT_IN, tmp_path, "s", 1, NOW)
    fill(replica, 500, 200, shift=500)
    reader = sqlite3.connect(f"{replica.path.as_uri()}?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM prices").fetchone()
    done = restore(made.path, replica.path, BUILT_IN, outbox_of(replica.path), "s", NOW)
    assert done.positions == {"price/all": 500}
    assert done.former == replica.path.with_name("replica.db.replaced-20261125T031500.000000Z")
    assert amounts(replica.path) == {100}
    assert reader.execute("SELECT DISTINCT amount_minor FROM current_prices").fetchall() == [(200,)]
    reader.close()
    assert done.former is not None
    assert amounts(done.former) == {200}, "with its log: nothing of it is lost"
    again = Replica.open(replica.path, ("all",), BUILT_IN)
    assert (again.state(ALL).position, made.path.exists()) == (500, True)
    again.connection.close()


def test_a_restore_onto_a_new_machine_needs_no_replica_there(replica: Replica, tmp_path: Path) -> None:
    made = backup.make(replica.path, BUILT_IN, tmp_path, "s", 1, NOW)
    done = restore(made.path, tmp_path / "new" / "replica.db", BUILT_IN, tmp_path / "new" / "outbox.db", "s", NOW)
    assert (done.former, amounts(tmp_path / "new" / "replica.db")) == (None, {100})


def test_an_old_log_never_comes_under_a_restored_file(replica: Replica, tmp_path: Path) -> None:
    """As a crash between two renames leaves it: a log without its file."""
    made = backup.make(replica.path, BUILT_IN, tmp_path, "s", 1, NOW)
    fill(replica, 500, 200, shift=500)
    assert Path(f"{replica.path}-wal").stat().st_size > 0
    replica.path.rename(tmp_path / "gone")
    restore(made.path, replica.path, BUILT_IN, outbox_of(replica.path), "s", NOW)
    assert amounts(replica.path) == {100}
    assert verify.scan(replica.path, ALL).ok


def test_a_restore_is_refused_while_the_daemon_runs(replica: Replica, tmp_path: Path) -> None:
    made = backup.make(replica.path, BUILT_IN, tmp_path, "s", 1, NOW)
    lock = lock_instance(Path(f"{replica.path}.lock"))
    assert lock is not None
    with closing(lock), pytest.raises(AlreadyRunning, match="the daemon has the replica") as caught:
        restore(made.path, replica.path, BUILT_IN, outbox_of(replica.path), "s", NOW)
    assert "systemctl stop" in caught.value.hint


def damaged(whole: bytes, how: str) -> bytes:
    half = len(whole) // 2
    return {
        "cut": whole[:half],
        "flipped": whole[:half] + b"\xff" * 4_096 + whole[half + 4_096 :],
        "other": b"no database " * 1_000,
        "empty": b"",
        "newer": whole[:60] + (99).to_bytes(4, "big") + whole[64:],
    }[how]


@pytest.mark.parametrize("how", ["cut", "flipped", "other", "empty", "newer"])
def test_a_file_that_is_no_whole_backup_touches_nothing(replica: Replica, tmp_path: Path, how: str) -> None:
    made = backup.make(replica.path, BUILT_IN, tmp_path, "s", 1, NOW)
    bad = tmp_path / "bad.db"
    bad.write_bytes(damaged(made.path.read_bytes(), how))
    fill(replica, 500, 200, shift=500)
    before = sorted(p.name for p in replica.path.parent.iterdir() if not p.name.endswith(".lock"))
    with pytest.raises(BackupUnsound):
        restore(bad, replica.path, BUILT_IN, outbox_of(replica.path), "s", NOW)
    assert sorted(p.name for p in replica.path.parent.iterdir() if not p.name.endswith(".lock")) == before
    assert amounts(replica.path) == {200}


def test_somebody_elses_file_in_the_replicas_place_is_left_alone(replica: Replica, tmp_path: Path) -> None:
    made = backup.make(replica.path, BUILT_IN, tmp_path, "s", 1, NOW)
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE mine (x)")
    before = other.read_bytes()
    with pytest.raises(ReplicaDamaged, match="not a replica"):
        restore(made.path, other, BUILT_IN, tmp_path / "outbox.db", "s", NOW)
    assert other.read_bytes() == before


def test_what_waits_for_hq_waits_on_through_a_restore(replica: Replica, tmp_path: Path) -> None:
    made = backup.make(replica.path, BUILT_IN, tmp_path, "s", 1, NOW)
    with Outbox(replica.path.with_name("outbox.db")) as outbox:
        outbox.append("sale.total", {"minor": 5})
        before = outbox.state()
    restore(made.path, replica.path, BUILT_IN, outbox_of(replica.path), "s", NOW)
    with Outbox(replica.path.with_name("outbox.db")) as outbox:
        assert outbox.state() == before
        assert [e.data for e in outbox.after(0, 9)[0]] == ['{"minor":5}']


def test_a_machine_that_was_lost_with_its_outbox_gets_the_stores_own_prices_back_and_hq_is_told(
    replica: Replica, tmp_path: Path
) -> None:
    now_s = int(NOW.timestamp())
    with Outbox(outbox_of(replica.path)) as outbox:
        for sku, until_s in (("1", 9_000), ("2", 60), ("3", 9_000)):
            put(outbox, sku, 77, "EUR", now_s + until_s, "test", now_s * 1000)
        withdraw(outbox, "3", (now_s + 10) * 1000)
        OverrideCopy(outbox.path, replica, "s").step(0, woken=True)
    replica.heartbeat(store_id="s", pid=None, connected=False, started_at_ms=0, counters={}, wall_ms=now_s * 1000)
    made = backup.make(replica.path, BUILT_IN, tmp_path, "s", 1, NOW)
    later = NOW + timedelta(minutes=10)
    new = tmp_path / "new" / "replica.db"
    assert restore(made.path, new, BUILT_IN, outbox_of(new), "s", later, unknown="set").overrides == 1
    with Outbox(outbox_of(new)) as outbox:
        ((kind, data),) = [(e.type, json.loads(e.data)) for e in outbox.after(0, 9)[0]]
    assert (kind, data["sku"], data["amount_minor"]) == (OVERRIDE_SET, "1", 77)
    assert restore(made.path, new, BUILT_IN, outbox_of(new), "s", later).overrides == 0, "the outbox knows them now"
    same = restore(made.path, replica.path, BUILT_IN, outbox_of(replica.path), "s", later)
    assert same.overrides == 0, "an outbox that is there knows better, also what was withdrawn"
    old_db = tmp_path / "old" / "replica.db"
    old = restore(made.path, old_db, BUILT_IN, outbox_of(old_db), "s", NOW + timedelta(days=99))
    assert old.overrides == 0


def test_the_commands_say_what_they_did(replica: Replica, tmp_path: Path) -> None:
    done = typed(tmp_path, "backup", str(tmp_path / "b"), "--json")
    document = json.loads(done.stdout)
    assert (done.exit_code, document["streams"], document["dropped"]) == (0, {"price/all": 500}, [])
    assert typed(tmp_path, "backup").exit_code == 1
    replica.connection.close()
    done = typed(tmp_path, "restore", document["file"])
    assert done.exit_code == 0
    assert "restored: price/all at 500" in done.stdout
    assert "replica.db.replaced-" in done.stdout
    done = typed(tmp_path, "restore", document["file"], "--json")
    assert json.loads(done.stdout)["streams"] == {"price/all": 500}
    assert typed(tmp_path, "restore", str(tmp_path / "none.db")).exit_code == 1


def test_jobs_shows_what_is_due_and_what_happened_last(replica: Replica, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'backup_dir = "{tmp_path / "b"}"\non_price_change = "true"\n')
    found = json.loads(typed(tmp_path, "--config", str(config), "jobs", "--json").stdout)
    assert (found["running"], list(found["jobs"])) == (
        False,
        ["activate", "hook", "verify", "backup", "prune", "checkpoint"],
    )
    assert found["jobs"]["hook"] == dict.fromkeys(found["jobs"]["hook"]) | {"owed": False}
    assert typed(tmp_path, "--config", str(config), "backup").exit_code == 0
    found = json.loads(typed(tmp_path, "--config", str(config), "jobs", "--json").stdout)["jobs"]["backup"]
    assert (found["ok"], found["owed"], NAME[:10] in found["detail"]) == (True, False, True)
    assert found["last_at"] < found["next_at"]
    shown = typed(tmp_path, "--config", str(config), "jobs").stdout
    assert "the daemon does not run" in shown
    assert "replica-s-" in shown
    assert "never yet" in shown
    assert "backup" not in typed(tmp_path, "jobs").stdout, "what is not configured is not due"


def test_pruning_removes_what_is_over_and_nothing_else(tmp_path: Path) -> None:
    db, backups = tmp_path / "replica.db", tmp_path / "b"
    backups.mkdir()
    old, young = "20261001T000000.000001Z", "20261120T000000.000001Z"
    gone = [
        f"replica.db.damaged-{old}",
        f"replica.db.damaged-{old}-wal",
        f"replica.db.replaced-{old}",
        "b/.replica-s-x.db.7.part",
    ]
    kept = [
        "replica.db",
        "replica.db-wal",
        "outbox.db",
        f"replica.db.damaged-{young}",
        f"replica.db.replaced-{young}",
        "replica.db.damaged-by-hand",
        "b/.replica-s-y.db.8.part",
        f"b/{NAME}",
    ]
    for name in gone + kept:
        (tmp_path / name).touch()
        age = timedelta(days=2 if name in gone else 0)
        os.utime(tmp_path / name, ((NOW - age).timestamp(),) * 2)
    assert prune(db, backups, NOW) == len(gone)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == set(kept)
