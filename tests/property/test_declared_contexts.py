"""Any context that a chain may declare: rows travel, are stored and proven as they are, at HQ and in a store."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import event, given, settings
from hypothesis import strategies as st

from hq.core.changes import Change, Tip, check_as_a_store_would, sequence
from hq.core.feed_diff import Diff, diff
from hq.core.feed_table import Table, compare_columns
from hq.errors import BadFeed
from hq.master.audit import verify
from hq.master.store import Master
from storelink.contract.contexts import Context, Key, Row
from storelink.contract.errors import ContractViolation
from storelink.contract.messages import Live, Message, decode_live, encode_live
from storelink.contract.rows import EMPTY, to_hex, total
from storelink.contract.streams import Stream
from storenode.replica.verify import scan as scan_rows
from storenode.replica.writer import Replica
from tests.property.contract_rows import contents, declarations, keys
from tests.registry import EXAMPLE, registry_of

EPOCH = "000000000001-00000000"
NOW_S = 1_800_000_000


def entities(data: st.DataObject, context: Context) -> dict[Key, Row]:
    found = data.draw(st.dictionaries(keys(context), contents(context), max_size=6))
    kept = {key: values for key, values in found.items() if "u0000" not in str(values)}  # HQ takes no NUL
    return {tuple(map(str, key)): values for key, values in kept.items()}


@settings(max_examples=150, deadline=None)
@given(st.data(), declarations(), st.binary(max_size=3))
def test_rows_travel_as_they_are_and_damage_is_refused(data: st.DataObject, text: str, noise: bytes) -> None:
    contexts = registry_of(text)
    context = contexts["thing"]
    rows = [(seq, *key, *values) for seq, (key, values) in enumerate(entities(data, context).items(), start=1)]
    digest = to_hex(total(rows))
    live = Live(Stream(context, "all"), EPOCH, 1, len(rows), EMPTY, digest, True, 5, rows, [], [[] for _ in rows])
    message = encode_live("t", live)
    assert list(decode_live("t", message, contexts).rows) == rows
    at = data.draw(st.integers(0, len(message.payload)))
    spoiled = message.payload[:at] + noise + message.payload[at + len(noise) :]
    try:
        decode_live("t", Message(message.topic, spoiled, content_type=message.content_type), contexts)
    except ContractViolation as violation:
        event(violation.reason)


@settings(max_examples=40, deadline=None)
@given(st.data(), declarations())
def test_what_hq_commits_a_store_keeps_and_both_can_prove_it(data: st.DataObject, text: str) -> None:
    contexts = registry_of(text)
    context = contexts["thing"]
    with TemporaryDirectory() as directory:
        stream, model = Stream(context, "all"), entities(data, context)
        Master.create(Path(directory) / "hq.db", contexts, 0)
        with Master.open(Path(directory) / "hq.db", contexts) as master:
            master.commit(stream, [Change(key, values) for key, values in model.items()], 0)
            rows = list(master.live_rows(stream).values())
            row = master.stream(stream)
            assert not [finding for finding in verify(master) if finding.problems]
        assert row is not None
        assert {context.key_of(each): context.values_of(each) for each in rows} == model
        replica = Replica.open(Path(directory) / "replica.db", ("all",), contexts)
        replica.apply(
            stream,
            epoch=row.epoch,
            position=row.head_seq,
            digest=row.digest,
            head_seq=row.head_seq,
            batches=[(rows, [])],
            replace=False,
            wall_ms=0,
        )
        scan = scan_rows(replica.path, stream)
        replica.connection.close()
        assert (scan.ok, scan.rows) == (True, len(model))


cells = {
    "code": st.integers(1, 9).map(str) | st.sampled_from(["", " ", "x" * 65]),
    "title": st.sampled_from(["A", " A", "B", "", "x" * 201]),
    "slogan": st.sampled_from(["", "A"]),
    "audience": st.sampled_from(["", "members", "everyone", "staff"]),
    "starts_on": st.sampled_from(["2026-06-01", " 2026-06-01", "", "2026-02-30", "soon"]),
    "ends_on": st.sampled_from(["", "2026-06-01"]),
    "minimum_minor": st.sampled_from(["", "1", "1.00", "01", "1.999", "-1", "1,5"]),
    "stackable": st.sampled_from(["", "yes", "true", "1", "0", "False", "maybe"]),
    "rules": st.sampled_from(["", '{"b":1,"a":2}', '{"a":2,"b":1}', "[]"]),
}
usual = {
    "code": st.integers(1, 9).map(str),
    "title": st.sampled_from(["A", " A", "B"]),
    "slogan": cells["slogan"],
    "audience": st.sampled_from(["", "members"]),
    "starts_on": st.sampled_from(["2026-06-01", "2026-06-02 "]),
    "ends_on": cells["ends_on"],
    "minimum_minor": st.sampled_from(["", "1", "1.00", "2"]),
    "stackable": st.sampled_from(["", "yes", "1", "0"]),
    "rules": st.sampled_from(["", '{"b":1,"a":2}']),
}


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Mostly with all that a new entity must get, which is what is compared by columns."""
    due = draw(st.sampled_from([["title", "audience", "starts_on", "stackable"]] * 3 + [[]]))
    further = st.lists(st.sampled_from([n for n in cells if n not in ("code", *due)]), unique=True, min_size=1)
    names = draw(st.permutations(["code", *due, *draw(further)]))
    good, odd = (st.tuples(*(source[name] for name in names)) for source in (usual, cells))
    rows = draw(st.lists(good, max_size=6, unique_by=lambda row: row[names.index("code")].strip()))
    return Table(names, rows + draw(st.just([]) | st.lists(odd, max_size=1)), 2)


def test_a_usual_feed_of_a_declared_context_is_compared_by_columns() -> None:
    """Otherwise the agreement below would say nothing."""
    names = ["code", "title", "audience", "starts_on", "stackable", "minimum_minor"]
    feed = Table(names, [["1", "A", "", "2026-06-01", "yes", "1.00"], ["2", "B", "members", "2026-06-01", "0", ""]], 2)
    found = compare_columns(PROMOTION, feed, {}, NOW_S)
    assert found is not None
    assert [change.values for change in found.changes] == [
        ("A", None, None, "2026-06-01", None, 100, 1, None),
        ("B", None, "members", "2026-06-01", None, None, 0, None),
    ]


def outcome(context: Context, feed: Table, current: dict[Key, Row], *, by_row: bool) -> Diff | str:
    try:
        return diff(context, "f.csv", list(feed) if by_row else feed, current, NOW_S, full=True)
    except BadFeed as error:
        return str(error)


PROMOTION = registry_of(EXAMPLE.read_text())["promotion"]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_feed_compared_by_columns_is_what_it_is_row_by_row(data: st.DataObject) -> None:
    """With integers, defaults and days; each feed once more changes nothing; a store takes what came of it."""
    current: dict[Key, Row] = {}
    for _ in range(3):
        feed = data.draw(tables())
        for again in (False, True):
            event(f"by columns: {compare_columns(PROMOTION, feed, current, NOW_S) is not None}")
            found = outcome(PROMOTION, feed, current, by_row=False)
            assert found == outcome(PROMOTION, feed, current, by_row=True)
            if isinstance(found, Diff):
                assert not (again and found.changes)
                made = sequence(PROMOTION, Tip(0, EMPTY, 0), found.changes, {}, 0)
                check_as_a_store_would(Stream(PROMOTION, "all"), made)
                for key, values in found.changes:
                    current.pop(key, None)
                    if values is not None:
                        current[key] = (1, *key, *values)
