"""The master: one transaction, one order, and what others may rely on."""

import sqlite3
import threading
from pathlib import Path

import pytest

from hq.core.changes import Change
from hq.errors import AlreadyRunning, HqError, MasterDamaged, MasterMissing, MasterUnwritable
from hq.master import audit, schema
from hq.master.checkpointer import CHECKPOINT_ABOVE_BYTES, checkpoint
from hq.master.lock import hold, runs
from hq.master.store import Committed, Master
from hq.master.wakeup import notify, wakeup_of
from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.errors import ContractViolation
from storelink.contract.rows import EMPTY, to_hex, total
from storelink.contract.streams import Stream, is_epoch

PRODUCTS = Stream.parse("product/all", BUILT_IN)
WEST = Stream.parse("price/zone-west", BUILT_IN)


def product(name: str) -> Row:
    return (None, name, *(None,) * 10)


@pytest.fixture
def master(tmp_path: Path) -> Master:
    Master.create(tmp_path / "hq.db", BUILT_IN, 1_000, lambda: 7)
    return Master.open(tmp_path / "hq.db", BUILT_IN, lambda: 7)


def test_a_new_master_has_an_empty_stream_for_each_context(master: Master) -> None:
    rows = master.streams()
    assert [(str(r.stream), r.head_seq, r.digest, r.rows, r.floor) for r in rows] == [
        ("price/all", 0, EMPTY, 0, 0),
        ("product/all", 0, EMPTY, 0, 0),
    ]
    assert all(is_epoch(r.epoch) for r in rows)
    assert Master.create(master.path, BUILT_IN, 2_000) is False
    assert master.streams() == rows


def test_rows_events_and_stream_are_written_together(master: Master) -> None:
    assert master.commit(PRODUCTS, [Change(("a",), product("A")), Change(("b",), product("B"))], 5) == Committed(
        PRODUCTS, 1, 2
    )
    assert master.commit(PRODUCTS, [Change(("a",), None), Change(("b",), product("B"))], 6) == Committed(PRODUCTS, 3, 3)
    tail = master.tail(PRODUCTS, 0, 10)
    rows: list[Row] = [(2, "b", *product("B"))]
    assert (tail.rows, tail.deleted, tail.more, tail.last_seq) == (rows, [(3, "a")], False, 3)
    assert (tail.stream.head_seq, tail.stream.rows, tail.stream.digest) == (3, 1, to_hex(total(rows)))
    events = master.events_after(PRODUCTS, 0, 10)
    assert [(e.seq, e.op, e.changed, e.row, e.prev_seq, e.ends, e.at_ms) for e in events] == [
        (1, "upsert", ["name"], (1, "a", *product("A")), 0, False, 5),
        (2, "upsert", ["name"], (2, "b", *product("B")), 0, True, 5),
        (3, "delete", [], (3, "a"), 1, True, 6),
    ]
    assert [e.digest for e in events] == [master.digest_at(PRODUCTS, seq) for seq in (1, 2, 3)]
    assert master.events_after(PRODUCTS, 1, 1) == events[1:2]
    assert master.digest_at(PRODUCTS, 0) == EMPTY


def test_a_range_is_read_in_order_and_up_to_a_limit(master: Master) -> None:
    master.commit(PRODUCTS, [Change((f"{i}",), product("A")) for i in range(10)], 5)
    master.commit(PRODUCTS, [Change(("0",), product("B")), Change(("4",), None)], 6)
    rows, deleted = master.rows_between(PRODUCTS, 1, 12)
    assert ([r[0] for r in rows], deleted) == ([2, 3, 4, 6, 7, 8, 9, 10, 11], [(12, "4")])
    assert [r[0] for r in master.rows_between(PRODUCTS, 4, 12, 3)[0]] == [4, 6, 7]
    assert master.count_by_range(PRODUCTS, [(1, 5), (6, 10), (11, 12), (13, 20)]) == [3, 5, 2, 0]
    assert [(t.more, t.last_seq) for t in (master.tail(PRODUCTS, 9, n) for n in (1, 2, 3))] == [
        (True, 10),
        (True, 11),
        (False, 12),
    ]


def test_a_commit_with_the_live_rows_at_hand_makes_the_events_that_it_makes_without(tmp_path: Path) -> None:
    """What was deleted is not among them, and its return still names the event that deleted it."""
    logs = []
    for name in ("asked", "given"):
        Master.create(tmp_path / name, BUILT_IN, 1)
        with Master.open(tmp_path / name, BUILT_IN) as master:
            master.commit(PRODUCTS, [Change((key,), product("A")) for key in "abc"], 5)
            master.commit(PRODUCTS, [Change(("b",), None)], 6)
            changes = [Change(("a",), product("Z")), Change(("b",), product("B")), Change(("c",), None)]
            with master.writing():
                live = master.live_rows(PRODUCTS) if name == "given" else None
                master.commit(PRODUCTS, [*changes, Change(("d",), product("D"))], 7, live)
            logs.append(master.events_after(PRODUCTS, 0, 99))
    assert logs[0] == logs[1]
    assert [event.prev_seq for event in logs[1]] == [0, 0, 0, 2, 1, 4, 3, 0]


def test_a_scope_begins_with_its_first_commit(master: Master) -> None:
    assert master.stream(WEST) is None
    master.commit(WEST, [Change(("1", "regular"), ("EUR", "[[5,null,199]]"))], 5)
    row = master.stream(WEST)
    assert row is not None
    assert (row.head_seq, row.rows) == (1, 1)
    assert master.live_rows(WEST) == {("1", "regular"): (1, "1", "regular", "EUR", "[[5,null,199]]")}
    assert master.live_rows(Stream.parse("price/all", BUILT_IN)) == {}


def test_a_refused_commit_leaves_nothing(master: Master) -> None:
    with pytest.raises(ContractViolation):
        master.commit(WEST, [Change(("1", "regular"), ("euro", "[[5,null,199]]"))], 5)
    assert master.stream(WEST) is None
    master.commit(PRODUCTS, [Change(("a",), product("A"))], 5)
    with pytest.raises(ZeroDivisionError), master.writing():
        master.commit(PRODUCTS, [Change(("b",), product("B"))], 6)
        raise ZeroDivisionError
    row = master.stream(PRODUCTS)
    assert row is not None
    assert (row.head_seq, len(master.events_after(PRODUCTS, 0, 9))) == (1, 1)


def test_ten_threads_of_writers_make_one_sequence(tmp_path: Path, master: Master) -> None:
    """Each reads its entity's counter and adds one, in one transaction: no write may be lost."""

    def write() -> None:
        with Master.open(tmp_path / "hq.db", BUILT_IN) as mine:
            for _ in range(10):
                with mine.writing():
                    found = mine.stored(PRODUCTS, ("n",))
                    count = 0 if found is None else int(str(found.row[3]))
                    mine.commit(PRODUCTS, [Change(("n",), product(str(count + 1)))], 5)

    threads = [threading.Thread(target=write) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = master.stored(PRODUCTS, ("n",))
    assert found is not None
    assert found.row == (100, "n", *product("100"))
    assert [f.problems for f in audit.verify(master)] == [(), ()]


def test_a_snapshot_does_not_see_what_is_committed_meanwhile(tmp_path: Path, master: Master) -> None:
    with master.reading():
        before = master.streams()
        with Master.open(tmp_path / "hq.db", BUILT_IN) as other:
            other.commit(PRODUCTS, [Change(("a",), product("A"))], 5)
        assert master.streams() == before
    assert master.streams() != before


def test_a_new_epoch_is_written(master: Master) -> None:
    epoch = master.new_epoch(PRODUCTS, 2_000)
    row = master.stream(PRODUCTS)
    assert row is not None
    assert (row.epoch, epoch) == (epoch, "0000000007d0-00000007")


def test_a_power_cut_takes_no_commit_back_and_only_hq_run_checkpoints(master: Master) -> None:
    pragmas = {p: master.query(f"PRAGMA {p}")[0][0] for p in ("journal_mode", "synchronous", "wal_autocheckpoint")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "wal_autocheckpoint": 0}


def test_a_file_that_is_no_master_is_named_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(MasterMissing, match="no master"):
        Master.open(tmp_path / "hq.db", BUILT_IN)
    assert list(tmp_path.iterdir()) == []
    text = tmp_path / "text.db"
    text.write_text("this is no database, and long enough to be looked at as one" * 20)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE mine (x)")
    for path in (text, other):
        before = path.read_bytes()
        with pytest.raises(MasterDamaged, match="not a master"):
            Master.open(path, BUILT_IN)
        with pytest.raises(MasterDamaged, match="not a master"):
            Master.create(path, BUILT_IN, 1)
        if path is text:
            assert path.read_bytes() == before
    with pytest.raises(HqError):
        Master.create(tmp_path / "no" / "hq.db", BUILT_IN, 1)


def test_an_older_and_a_newer_format_are_refused(tmp_path: Path, master: Master) -> None:
    before = schema.VERSION
    for version in (before - 1, before + 1):
        master.query(f"PRAGMA user_version = {version}")
        said = f"has format {version}, this hq knows only {before}"
        with pytest.raises(MasterDamaged, match=said):
            Master.open(tmp_path / "hq.db", BUILT_IN)
        with pytest.raises(MasterDamaged, match=said):
            Master.create(tmp_path / "hq.db", BUILT_IN, 1)


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("UPDATE master_product SET name = 'x' WHERE sku = 'a'", "digest"),
        ("DELETE FROM master_product WHERE sku = 'a'", "live rows"),
        ("UPDATE streams SET digest = printf('%032d', 1)", "digest"),
        ("DELETE FROM events WHERE seq = 2", "event 2 is missing"),
        ("DELETE FROM events WHERE seq = 3", "the log ends at 2"),
        ("UPDATE events SET row = replace(row, 'A', 'Z') WHERE seq = 1", "event 1 carries"),
        ("UPDATE events SET prev_seq = 1 WHERE seq = 3", "event 3 names 1"),
        ("UPDATE master_product SET seq = 9 WHERE sku = 'gone'", "newest events"),
    ],
)
def test_verify_finds_what_was_altered_behind_its_back(master: Master, sql: str, says: str) -> None:
    master.commit(PRODUCTS, [Change(("a",), product("A")), Change(("gone",), product("B"))], 5)
    master.commit(PRODUCTS, [Change(("gone",), None)], 6)
    assert [f.problems for f in audit.verify(master)] == [(), ()]
    master.query(sql)
    assert says in " ".join(p for f in audit.verify(master) for p in f.problems)


def test_a_commit_wakes_whoever_listens(tmp_path: Path, master: Master) -> None:
    path = tmp_path / "hq.db"
    notify(path)
    wakeup = wakeup_of(path)
    try:
        assert not wakeup.wait(0)
        master.commit(PRODUCTS, [Change(("a",), product("A"))], 5)
        master.commit(PRODUCTS, [Change(("a",), product("B"))], 5)
        assert wakeup.wait(1)
        assert not wakeup.wait(0)
        master.commit(PRODUCTS, [Change(("a",), product("B"))], 5)
        assert not wakeup.wait(0)
        for _ in range(5_000):
            notify(path)
        assert wakeup.wait(0)
    finally:
        wakeup.close()


def test_there_is_one_instance_of_a_master(tmp_path: Path) -> None:
    path = tmp_path / "hq.db"
    assert not runs(path)
    with hold(path):
        assert runs(path)
        with pytest.raises(AlreadyRunning):
            hold(path)
    assert not runs(path)
    with pytest.raises(MasterUnwritable):
        hold(tmp_path / "nowhere" / "hq.db")


def test_the_log_is_read_from_a_seq_a_time_or_the_newest(master: Master) -> None:
    for seq in range(1, 6):
        master.commit(PRODUCTS, [Change(("a",), product(str(seq)))], seq * 1_000)
    assert [e["seq"] for e in audit.logged(master, None, None, None, 2)] == [4, 5]
    assert [e["seq"] for e in audit.logged(master, PRODUCTS, 2, None, 2)] == [2, 3]
    assert [e["seq"] for e in audit.logged(master, None, None, 3_000, 50)] == [3, 4, 5]
    assert audit.logged(master, Stream.parse("price/all", BUILT_IN), None, None, 50) == []
    assert audit.logged(master, None, 5, None, 50) == [
        {
            "stream": "product/all",
            "seq": 5,
            "time": "1970-01-01T00:00:05Z",
            "op": "upsert",
            "key": ["a"],
            "changed": ["name"],
        }
    ]


def test_a_checkpoint_waits_for_no_writer_and_moves_the_log_when_there_is_none(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hq.master.checkpointer.CHECKPOINT_ABOVE_BYTES", 1)
    master.commit(PRODUCTS, [Change((str(sku),), product("x" * 2_000)) for sku in range(20)], 1)
    before = master.path.stat().st_size
    with Master.open(master.path, BUILT_IN) as other, other.writing():
        checkpoint(master.path, 0)
        assert master.path.stat().st_size == before
    checkpoint(master.path, 0)
    assert master.path.stat().st_size > before


def test_the_write_ahead_log_is_small_again_after_a_checkpoint(master: Master) -> None:
    """Otherwise its size would ask for a checkpoint, which holds writers off, twice a second for ever."""
    log = master.path.with_name(master.path.name + "-wal")
    master.commit(PRODUCTS, [Change((str(sku),), product("x" * 2_000)) for sku in range(4_000)], 0)
    assert log.stat().st_size > CHECKPOINT_ABOVE_BYTES
    checkpoint(master.path, 0)
    master.commit(PRODUCTS, [Change(("0",), None)], 0)
    assert log.stat().st_size < CHECKPOINT_ABOVE_BYTES


def a_master(path: Path, sets: list[list[Change]], *, from_a_feed: bool) -> tuple[list[object], Master]:
    """What a master says of itself after the change sets."""
    Master.create(path, BUILT_IN, 1_000, lambda: 7)
    master = Master.open(path, BUILT_IN, lambda: 7)
    done = []
    for changes in sets:
        with master.writing():
            live = master.live_rows(PRODUCTS) if from_a_feed else None
            done.append(master.commit(PRODUCTS, changes, 5, live))
    assert not any(finding.problems for finding in audit.verify(master))
    events = master.events_after(PRODUCTS, 0, 1_000)
    return [done, events, master.rows_between(PRODUCTS, 0, 1_000), master.stream(PRODUCTS)], master


@pytest.mark.parametrize("from_a_feed", [False, True])
@pytest.mark.parametrize("per_write", [1, 2, 3, 5])
def test_a_change_set_is_the_same_in_how_many_parts_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_write: int, from_a_feed: bool
) -> None:
    """Deletions, what comes back, an entity twice, and a last part in which nothing is new; one end for each set."""
    sets = [
        [Change((key,), product(key)) for key in "abcdefg"],
        [Change((key,), None) for key in "bdf"],
        [Change(("b",), product("again")), *(Change((key,), product(key)) for key in "defg")],
        [Change(("h",), product("1")), Change(("c",), None), *(Change((key,), product("2")) for key in "hb")],
        [Change(("a",), product("new")), *(Change((key,), product(key)) for key in "defg")],
    ]
    at_once, _ = a_master(tmp_path / "at_once.db", sets, from_a_feed=from_a_feed)
    monkeypatch.setattr("hq.core.changes.CHANGES_PER_WRITE", per_write)
    parted, master = a_master(tmp_path / "parted.db", sets, from_a_feed=from_a_feed)
    assert parted == at_once
    assert [e.seq for e in master.events_after(PRODUCTS, 0, 1_000) if e.ends] == [7, 10, 13, 17, 18]


def test_of_a_change_set_with_a_bad_row_in_its_last_part_nothing_stays(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hq.core.changes.CHANGES_PER_WRITE", 1)
    before = master.streams()
    with pytest.raises(ContractViolation):
        master.commit(PRODUCTS, [Change(("a",), product("A")), Change(("b",), product("x" * 4_001))], 5)
    assert (master.streams(), master.events_after(PRODUCTS, 0, 10)) == (before, [])
    assert master.rows_between(PRODUCTS, 0, 10) == ([], [])
