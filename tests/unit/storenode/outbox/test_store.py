"""The outbox: accepted means on disk; nothing is dropped, nothing bad gets in."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from storelink.contract.limits import BATCH_BYTES_TARGET, ENTRY_BYTES_MAX
from storelink.contract.upstream import Entry, Refusal
from storenode.cli import main
from storenode.config import load
from storenode.errors import BadArgument, OutboxDamaged, OutboxFull
from storenode.outbox.file import VERSION, connect
from storenode.outbox.store import CHECKPOINT_ABOVE_BYTES, Outbox


def typed(directory: Path, *words: str, stdin: str | None = None) -> Result:
    environ = {"STORENODE_DB": str(directory / "replica.db"), "STORENODE_CONFIG": ""}
    return CliRunner().invoke(main, words, input=stdin, env=environ)


def test_entries_come_back_in_order_as_they_were_spelled(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db") as outbox:
        assert outbox.append_json("sale.total", ' {"a" : 1.10} ', 7) == 1
        assert outbox.append("note", "Käse", 8) == 2
        assert outbox.after(0, 9) == ([Entry(1, "sale.total", 7, '{"a":1.10}'), Entry(2, "note", 8, '"Käse"')], [])
        assert outbox.after(1, 9)[0][0].seq == 2


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("", "1"),
        ("-x", "1"),
        ("a b", "1"),
        ("x" * 65, "1"),
        ("é", "1"),
        ("x", ""),
        ("x", "{"),
        ("x", "NaN"),
        ("x", "1e999"),
        ("x", '{"a":1,"a":2}'),
        ("x", '"\\u0000"'),
        ("x", "1 2"),
        ("x", '"\\ud800"'),
        ("x", "9223372036854775808"),
        ("x", "[" * 40 + "]" * 40),
        ("x", '"' + "x" * ENTRY_BYTES_MAX + '"'),
    ],
)
def test_what_is_not_an_entry_is_refused_before_anything_is_written(tmp_path: Path, kind: str, text: str) -> None:
    with Outbox(tmp_path / "outbox.db") as outbox:
        with pytest.raises(BadArgument):
            outbox.append_json(kind, text)
        assert outbox.state().pending == 0
        assert outbox.append("x", None) == 1, "a refused entry uses no seq"


@pytest.mark.parametrize("at_ms", [-1, 2**63])
def test_a_time_that_no_message_can_say_is_refused(tmp_path: Path, at_ms: int) -> None:
    """It once was accepted, and HQ rejected the whole batch in which it came."""
    with Outbox(tmp_path / "outbox.db") as outbox, pytest.raises(BadArgument, match="at_ms"):
        outbox.append("x", 1, at_ms)


def test_a_python_value_that_is_no_json_is_refused(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db") as outbox, pytest.raises(BadArgument):
        outbox.append("x", {1, 2})


def test_the_cap_refuses_new_entries_and_keeps_the_old_ones(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", 200_000) as outbox:
        accepted = 0
        with pytest.raises(OutboxFull, match="of at most 200000"):
            for _ in range(100):
                outbox.append("x", "y" * 5_000)
                accepted += 1
        assert accepted > 20
        assert outbox.state().pending == accepted
        outbox.remove_acked(accepted, ())
        assert outbox.append("x", 1) == accepted + 1, "room again, and no seq is used twice"


def test_a_full_disk_refuses_and_keeps_what_was_accepted(tmp_path: Path) -> None:
    """The file may not grow: SQLite says so as it does on a full disk."""
    with Outbox(tmp_path / "outbox.db") as outbox:
        outbox.append("x", 1)
        outbox._db.execute("PRAGMA max_page_count = 1")
        with pytest.raises(OutboxFull, match="no space"):
            for _ in range(100):
                outbox.append("x", "y" * 50_000)
        standing = outbox.state()
        assert outbox.after(0, 1)[0][0].seq == 1
        assert standing.pending >= 1
    assert sqlite3.connect(tmp_path / "outbox.db").execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_only_an_acknowledgement_removes_and_what_hq_refused_is_set_aside(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db") as outbox:
        for number in range(1, 6):
            outbox.append("x", number, number)
        outbox.withhold(2, "oversized")
        assert outbox.after(0, 9)[1] == [Refusal(2, "oversized")]
        outbox.remove_acked(4, [Refusal(3, "bad_json")])
        found = outbox.state()
        assert (found.acked_seq, found.last_seq, found.pending, found.refused, found.oldest_at_ms) == (4, 5, 1, 2, 5)
    listed = json.loads(typed(tmp_path, "outbox", "--json").stdout)
    assert [(e["seq"], e["reason"]) for e in listed["refused"]] == [(2, "oversized"), (3, "bad_json")]
    assert [(e["seq"], e["data"]) for e in listed["entries"]] == [(5, 5)]
    assert typed(tmp_path, "outbox", "--forget-refused").stdout == "2 entries forgotten\n"
    assert json.loads(typed(tmp_path, "outbox", "--json").stdout)["refused"] == []


def test_a_batch_holds_about_64_kb_and_at_least_one_entry(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db") as outbox:
        for _ in range(10):
            outbox.append("x", "y" * 10_000)
        outbox.append("x", "y" * (ENTRY_BYTES_MAX - 2))
        assert len(outbox.after(0, 1_000)[0]) == BATCH_BYTES_TARGET // 10_043
        assert len(outbox.after(10, 1_000)[0]) == 1
        assert len(outbox.after(0, 1)[0]) == 1


def test_many_processes_make_and_fill_one_outbox_at_once(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    work = (
        "import sys; from storenode.outbox.store import Outbox\n"
        "for i in range(40): Outbox(sys.argv[1]).open().append('x', i)"
    )
    emitters = [subprocess.Popen([sys.executable, "-c", work, str(path)]) for _ in range(4)]
    assert [each.wait(60) for each in emitters] == [0] * 4
    with Outbox(path) as outbox:
        assert [e.seq for e in outbox.after(0, 1_000)[0]] == list(range(1, 161))
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == [], "nothing half-made is left"


def test_another_process_wakes_whoever_looks(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db") as outbox:
        seen = outbox.changed()
        assert outbox.changed() == seen
        with Outbox(tmp_path / "outbox.db") as other:
            other.append("x", 1)
        assert outbox.changed() != seen


def test_the_log_stays_short_also_when_no_daemon_ever_runs(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with Outbox(path) as outbox, Outbox(path):
        longest = 0
        for _ in range(400):
            outbox.append("x", "y" * 50_000)
            longest = max(longest, path.with_name("outbox.db-wal").stat().st_size)
        assert longest < 2 * CHECKPOINT_ABOVE_BYTES


def test_a_checkpoint_waits_for_no_writer_and_meets_none(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with Outbox(path) as outbox, Outbox(path) as other:
        outbox.append("x", 1)
        before = path.read_bytes()
        with other._writing():
            outbox.checkpoint(0)
            assert path.read_bytes() == before, "a writer is at work: not now"
        outbox.checkpoint(0)
        assert path.read_bytes() != before


def test_the_group_may_append_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "own" / "outbox.db"
    umask = os.umask(0o077)
    try:
        with Outbox(path) as outbox:
            outbox.append("x", 1)
            for file in (path, path.with_name("outbox.db-wal"), path.with_name("outbox.db-shm")):
                assert stat.S_IMODE(file.stat().st_mode) == 0o660, file.name
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o2770


def test_a_file_that_is_no_outbox_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(b"precious " * 1_000)
    with pytest.raises(OutboxDamaged):
        Outbox(path).open()
    assert path.read_bytes() == b"precious " * 1_000


def test_accepted_is_on_disk_before_it_is_said(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db"), closing(connect(tmp_path / "outbox.db", 1.0)) as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_making_the_object_opens_nothing_and_a_closed_outbox_says_how_it_is_opened(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="is not open: use `with Outbox"):
        outbox.append("x", 1)
    with outbox:
        assert outbox.open() is outbox
        assert outbox.append("x", 1) == 1
    outbox.close()
    with outbox:
        assert outbox.append("x", 2) == 2, "it may be opened again"


def test_an_outbox_may_be_made_in_one_thread_and_opened_in_another(tmp_path: Path) -> None:
    outbox, seqs = Outbox(tmp_path / "outbox.db"), list[int]()

    def work() -> None:
        with outbox:
            seqs.append(outbox.append("x", 1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seqs == [1]


def test_an_outbox_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with Outbox(path) as outbox:
        outbox.append("x", 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(OutboxDamaged, match="not an outbox of this version"), Outbox(path):
        pass
    assert path.read_bytes() == before


def test_two_outboxes_have_two_epochs_and_a_renewed_one_keeps_what_it_holds(tmp_path: Path) -> None:
    with Outbox(tmp_path / "a.db") as a, Outbox(tmp_path / "b.db") as b:
        assert a.state().epoch != b.state().epoch
        a.append("x", 1)
        before = a.state()
        assert a.renew(1, lambda _db, _wall_ms: ()) != before.epoch
        assert a.after(0, 9)[0][0].seq == 1


def test_emit_is_accepted_with_no_network_and_no_daemon_and_status_shows_it(tmp_path: Path) -> None:
    assert typed(tmp_path, "emit", "sale.total", '{"a": 1}').stdout == "accepted as 1\n"
    found = json.loads(typed(tmp_path, "emit", "sale.total", "-", "--json", stdin="[2]").stdout)
    assert (found["seq"], found["type"], found.keys()) == (2, "sale.total", {"epoch", "seq", "type", "time"})
    refused = typed(tmp_path, "emit", "sale.total", "{")
    assert (refused.exit_code, refused.stderr.startswith("error: data: ")) == (1, True)
    assert len(refused.stderr.splitlines()) == 1


def test_threads_of_one_program_append_each_on_a_connection_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    seqs: list[int] = []

    def work() -> None:
        with Outbox(path) as outbox:
            seqs.extend(outbox.append("x", i) for i in range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seqs) == list(range(1, 201))


def test_the_outbox_lies_beside_its_replica_and_two_replicas_share_none() -> None:
    assert load({"STORENODE_DB": "/x/replica.db"}).outbox_path == Path("/x/outbox.db")
    assert load({"STORENODE_DB": "/x/s1.db"}).outbox_path == Path("/x/s1.outbox.db")
    assert load({"STORENODE_OUTBOX": "/y/o.db", "STORENODE_OUTBOX_MAX_BYTES": "100000"}).outbox_path == Path("/y/o.db")
