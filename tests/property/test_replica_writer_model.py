"""The replica's rows and position, against a plain dict that is told the same changes one by one."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from storelink.contract.contexts import BUILT_IN
from storenode.replica.writer import Replica
from tests.price_rows import PRICE, advance, gone, line, rows_of

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
