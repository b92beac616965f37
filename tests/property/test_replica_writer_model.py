"""The replica's rows and position, against a plain dict that is told the same changes one by one."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from storelink.contract import contexts
from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.streams import Stream
from storenode.replica.writer import Replica

PRICE = Stream(contexts.PRICE, "all")
Batch = tuple[list[Row], list[Row]]

EPOCH = "000000000001-00000000"
NOW_MS = 1_760_000_000_000


def line(seq: int, sku: str, amount: int) -> Row:
    return (seq, sku, "regular", "EUR", f"[[1700000000,null,{amount}]]")


def gone(seq: int, sku: str) -> Row:
    return (seq, sku, "regular")


def advance(replica: Replica, position: int, *batches: Batch, stream: Stream = PRICE, replace: bool = False) -> int:
    return replica.apply(
        stream,
        epoch=EPOCH,
        position=position,
        digest=f"{position:032x}",
        head_seq=position,
        batches=batches,
        replace=replace,
        wall_ms=NOW_MS,
    )


def rows_of(path: Path, stream: Stream = PRICE) -> dict[str, int]:
    """What another process would read: sku to seq."""
    db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        return dict(db.execute(f"SELECT sku, seq FROM {stream.context.table} WHERE scope = ?", (stream.scope,)))
    finally:
        db.close()


SKUS = st.sampled_from("abcde")
CHANGES = st.lists(st.lists(st.tuples(SKUS, st.booleans()), max_size=6), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(CHANGES, st.data())
def test_any_history_in_any_batches_equals_a_dict(history: list[list[tuple[str, bool]]], data: st.DataObject) -> None:
    """The model is told the single changes; the replica gets them cut into batches, some of them a second time."""
    model: dict[str, int] = {}
    sent: list[tuple[int, str, bool]] = []
    with TemporaryDirectory() as directory:
        path = Path(directory) / "replica.db"
        replica = Replica.open(path, ("all",), BUILT_IN)
        for change_set in history:
            for sku, dead in change_set:
                sent.append((len(sent) + 1, sku, dead))
                if dead:
                    model.pop(sku, None)
                else:
                    model[sku] = len(sent)
            first = data.draw(st.integers(0, replica.state(PRICE).position), label="first, with repeats")
            cut = data.draw(st.integers(first, len(sent)), label="cut")
            batches = [
                ([line(s, k, s) for s, k, dead in part if not dead], [gone(s, k) for s, k, dead in part if dead])
                for part in (sent[first:cut], sent[cut:])
            ]
            advance(replica, len(sent), *batches)
            assert rows_of(path) == model
            assert replica.state(PRICE).position == len(sent)
        replica.connection.close()
