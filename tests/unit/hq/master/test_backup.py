"""Copies of the master: proven, never half there, and restored as a new incarnation."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.core.changes import Change
from hq.errors import AlreadyRunning, BackupRefused, MasterDamaged, MasterMissing
from hq.master import audit
from hq.master.backup import back_up, restore
from hq.master.lock import hold
from hq.master.store import Master
from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream

PRICE = Stream.parse("price/all", BUILT_IN)
NOW_MS = 1_767_225_600_000


def put(master: Master, sku: str, amount: int) -> None:
    master.commit(PRICE, [Change((sku, "regular"), ("EUR", f"[[0,null,{amount}]]"))], NOW_MS)


def standing(path: Path) -> tuple[str, int, int]:
    with Master.open(path, BUILT_IN) as master:
        assert not any(each.problems for each in audit.verify(master))
        return next((r.epoch, r.head_seq, r.rows) for r in master.streams() if r.stream == PRICE)


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    Master.create(tmp_path / "hq.db", BUILT_IN, NOW_MS)
    with Master.open(tmp_path / "hq.db", BUILT_IN) as found:
        put(found, "a", 1)
        yield found


def test_a_restored_master_is_the_copy_in_a_later_epoch(master: Master, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    back_up(master.path, copy, BUILT_IN)
    put(master, "b", 2)
    before = standing(master.path)
    aside = restore(master.path, copy, 7, BUILT_IN)  # by a clock that is wrong
    after = standing(master.path)
    assert (after[1:], before[1:]) == ((1, 1), (2, 2))
    assert after[0] > before[0]
    assert aside is not None
    assert standing(aside) == before
    assert standing(copy)[1:] == (1, 1)
    put(master, "c", 3)  # a connection that was open all the time
    assert standing(master.path)[1:] == (2, 2)


@pytest.mark.parametrize("present", ["missing", "garbage"])
def test_it_is_restored_whatever_became_of_the_master(master: Master, tmp_path: Path, present: str) -> None:
    copy = tmp_path / "copy.db"
    back_up(master.path, copy, BUILT_IN)
    master.close()
    if present == "missing":
        master.path.unlink()
    else:
        master.path.write_bytes(b"no database " * 1_000)
    aside = restore(master.path, copy, NOW_MS, BUILT_IN)
    assert standing(master.path)[1:] == (1, 1)
    assert (aside is None) == (present == "missing")
    assert aside is None or aside.read_bytes().startswith(b"no database")


def test_a_copy_that_does_not_add_up_changes_nothing(master: Master, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    back_up(master.path, copy, BUILT_IN)
    db = sqlite3.connect(copy)
    db.execute("UPDATE master_price SET currency = 'USD'")
    db.commit()
    db.close()
    before = standing(master.path)
    with pytest.raises(BackupRefused, match="digest"):
        restore(master.path, copy, NOW_MS, BUILT_IN)
    copy.write_bytes(b"x" * 5_000)
    with pytest.raises(MasterDamaged):
        restore(master.path, copy, NOW_MS, BUILT_IN)
    with pytest.raises(MasterMissing):
        restore(master.path, tmp_path / "nowhere.db", NOW_MS, BUILT_IN)
    assert standing(master.path) == before
    left = sorted(p.name for p in tmp_path.iterdir() if "hq.db" in p.name and "-" not in p.name)
    assert left == ["hq.db", "hq.db.lock"]


def test_a_copy_never_takes_another_files_place(master: Master, tmp_path: Path) -> None:
    target = tmp_path / "there.db"
    target.write_text("mine")
    with pytest.raises(BackupRefused, match="exists"):
        back_up(master.path, target, BUILT_IN)
    assert target.read_text() == "mine"


def test_a_running_hq_is_not_pulled_from_under(master: Master, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    back_up(master.path, copy, BUILT_IN)
    with hold(master.path), pytest.raises(AlreadyRunning):
        restore(master.path, copy, NOW_MS, BUILT_IN)
