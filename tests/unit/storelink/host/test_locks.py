"""The lock beside a database, where others may put what is no lock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from storelink.host.locks import is_running, lock_instance


def test_a_lock_is_held_as_long_as_its_file_is_open(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    assert not is_running(path)
    lock = lock_instance(path)
    assert lock is not None
    assert (is_running(path), lock_instance(path)) == (True, None)
    lock.close()
    assert not is_running(path)


def test_a_symbolic_link_is_no_lock_and_is_not_followed(tmp_path: Path) -> None:
    (path := tmp_path / "x.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        lock_instance(path)
    assert not is_running(path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_fifo_in_a_locks_place_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(path := tmp_path / "x.lock")
    assert not is_running(path)
