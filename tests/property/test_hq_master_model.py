"""Whatever is committed, the master, its log and its digests say the same as a plain dict does."""

import tempfile
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from hq.core.changes import Change
from hq.master import audit
from hq.master.store import Master
from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.streams import Stream

STREAM = Stream.parse("product/all", BUILT_IN)

names = st.one_of(st.none(), st.text("ab é€\U0001f34c\"\\'\n", max_size=3))
changes = st.builds(
    lambda key, name, gone: Change((key,), None if gone else (None, name or None, *(None,) * 10)),
    st.sampled_from("abcdefg"),
    names,
    st.booleans(),
)


def digest_of(rows: list[Row]) -> str:
    """Independent of storelink.contract.rows: the README's words."""
    acc = sum(int.from_bytes(blake2b(msgspec.json.encode(list(row)), digest_size=16).digest(), "big") for row in rows)
    return format(acc % 2**128, "032x")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(changes, max_size=8), max_size=8))
def test_the_master_is_what_its_changes_say(sets: list[list[Change]]) -> None:
    model: dict[str, Row] = {}
    versions: dict[str, int] = {}
    seq = 0
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        Master.create(Path(directory) / "hq.db", BUILT_IN, 1)
        master = stack.enter_context(Master.open(Path(directory) / "hq.db", BUILT_IN))
        for change_set in sets:
            for (key,), values in change_set:
                old = model.get(key)
                if (values is None and old is None) or (old is not None and values == old[2:]):
                    continue
                seq += 1
                versions[key] = seq
                if values is None:
                    del model[key]
                else:
                    model[key] = (seq, key, *values)
            done = master.commit(STREAM, change_set, 2)
            row = master.stream(STREAM)
            assert row is not None
            assert (done.head_seq, row.head_seq, row.rows) == (seq, seq, len(model))
            assert row.digest == digest_of(list(model.values())) == master.digest_at(STREAM, seq)
        rows, deleted = master.rows_between(STREAM, 1, seq)
        assert rows == sorted(model.values(), key=lambda r: int(str(r[0])))
        assert deleted == sorted((s, k) for k, s in versions.items() if k not in model)
        assert not any(finding.problems for finding in audit.verify(master))
        _check_that_the_log_replays(master, model)


def _check_that_the_log_replays(master: Master, model: dict[str, Row]) -> None:
    replica: dict[str, Row] = {}
    for event in master.events_after(STREAM, 0, 1_000):
        key = str(event.row[1])
        if event.op == "delete":
            del replica[key]
        else:
            replica[key] = event.row
        assert event.digest == digest_of(list(replica.values()))
    assert replica == model
