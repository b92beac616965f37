"""What concerns one stream reads that one, however many there are; by the steps that SQLite takes, not by a clock."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hq.core.changes import Change
from hq.master import audit
from hq.master.connection import connect
from hq.master.store import Master, random_epoch
from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.streams import Stream

MANY = 500
MANY_CHANGES = 10_000

Act = Callable[[Master], object]


def stream_of(index: int) -> Stream:
    return Stream.parse(f"price/store-{index:05}", BUILT_IN)


def price(minor: int) -> Row:
    return ("EUR", f"[[1764000000,null,{minor}]]")


@contextmanager
def counted(path: Path, streams: int) -> Iterator[tuple[Master, list[int]]]:
    """A master of so many streams, and a list whose only member counts the steps of SQLite's machine."""
    Master.create(path, BUILT_IN, 1_000)
    connection = connect(path, "rw")
    with Master(path, BUILT_IN, connection, random_epoch) as master:
        with master.writing():
            for index in range(streams):
                master.commit(stream_of(index), [Change(("4011", "regular"), price(100))], 1_000)
        steps = [0]

        def count() -> None:
            steps[0] += 1

        connection.set_progress_handler(count, 1)
        yield master, steps


def steps_of(path: Path, streams: int, act: Act) -> int:
    with counted(path, streams) as (master, steps):
        act(master)
        return steps[0]


ACTS: dict[str, Act] = {
    "commit": lambda m: m.commit(stream_of(1), [Change(("4011", "regular"), price(101))], 2_000),
    "no change": lambda m: m.commit(stream_of(1), [Change(("4011", "regular"), price(100))], 2_000),
    "first commit": lambda m: m.commit(stream_of(MANY + 1), [Change(("1", "regular"), price(1))], 2_000),
    "new epoch": lambda m: m.new_epoch(stream_of(1), 2_000),
    "stream": lambda m: m.stream(stream_of(1)),
    "tail": lambda m: m.tail(stream_of(1), 0, 10),
    "what changed": lambda m: m.streams_since(MANY_CHANGES),
    "log": lambda m: audit.logged(m, stream_of(1), None, None, 10),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=list(ACTS))
def test_what_concerns_one_stream_takes_no_more_steps_with_many(tmp_path: Path, act: Act) -> None:
    few, many = (steps_of(tmp_path / f"{count}.db", count, act) for count in (2, MANY))
    assert many <= 1.2 * few


def test_the_steps_show_what_reads_all_streams(tmp_path: Path) -> None:
    few, many = (steps_of(tmp_path / f"{count}.db", count, Master.streams) for count in (2, MANY))
    assert many > 50 * few


def test_what_changed_is_told_once_with_all_of_its_kinds(tmp_path: Path) -> None:
    with counted(tmp_path / "hq.db", 3) as (master, _):
        newest, rows, left_out = master.streams_since(0)
        assert (rows, left_out) == (master.streams(), [])
        assert master.streams_since(newest) == (newest, [], [])
        master.commit(stream_of(2), [Change(("4011", "regular"), None)], 2_000)
        master.new_epoch(stream_of(0), 2_000)
        master.commit(stream_of(7), [Change(("1", "regular"), price(1))], 2_000)
        newest, rows, _ = master.streams_since(newest)
        assert rows == [master.stream(stream_of(index)) for index in (0, 2, 7)]
        master.remove_tombstones(stream_of(2), 2)
        newest, rows, _ = master.streams_since(newest)
        assert [(row.stream, row.floor) for row in rows] == [(stream_of(2), 2)]
        with pytest.raises(ZeroDivisionError), master.writing():
            master.commit(stream_of(1), [Change(("1", "regular"), price(1))], 2_000)
            raise ZeroDivisionError
        assert master.streams_since(newest) == (newest, [], [])
