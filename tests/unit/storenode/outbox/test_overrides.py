"""The store's own prices: one transaction with HQ's entry, mirrored into the replica, told at HQ."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import hq.cli
from hq.collect.inbox import StoreInbox, inbox_path, reading
from hq.collect.overrides import in_force
from storelink.contract.contexts import BUILT_IN
from storelink.contract.rows import row_hash, to_hex
from storelink.contract.streams import Stream
from storelink.contract.times import rfc3339
from storelink.contract.upstream import OVERRIDE_SET, OVERRIDE_WITHDRAWN, Entry, OutboxBatch
from storelink.host.locks import lock_instance
from storenode import outbox_client
from storenode.cli import main
from storenode.errors import BadArgument, NotFound, OutboxFull
from storenode.outbox import override_copy, overrides
from storenode.outbox.file import FILE_MODE
from storenode.outbox.override_copy import OverrideCopy
from storenode.outbox.overrides import read
from storenode.outbox.store import Outbox
from storenode.replica import queries, verify
from storenode.replica.writer import Replica

PRICE, PRODUCT = Stream.parse("price/all", BUILT_IN), Stream.parse("product/all", BUILT_IN)
NOW_S = int(time.time())
NOW_MS, DAY_S = NOW_S * 1000, 86_400
LATER = rfc3339((NOW_S + DAY_S) * 1000)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.db") as outbox:
        yield outbox


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    """Prices 4011 at 1.99 EUR, and knows a product 4046 without a price."""
    replica = Replica.open(tmp_path / "replica.db", ("all",), BUILT_IN)
    put(replica, PRICE, (1, "4011", "regular", "EUR", "[[1700000000,null,199]]"))
    put(replica, PRODUCT, (1, "4046", None, "Avocado", *(None,) * 10))
    yield replica
    replica.connection.close()


def put(replica: Replica, stream: Stream, row: Any) -> None:
    replica.apply(
        stream,
        epoch="e",
        position=1,
        digest=to_hex(row_hash(row)),
        head_seq=1,
        batches=[([row], [])],
        replace=False,
        wall_ms=NOW_MS,
    )


def typed(directory: Path, *words: str) -> Result:
    environ = {"STORENODE_DB": str(directory / "replica.db"), "STORENODE_STORE_ID": "store-7", "STORENODE_CONFIG": ""}
    return CliRunner().invoke(main, words, env=environ)


def entries(outbox: Outbox) -> list[tuple[str, Any]]:
    return [(entry.type, json.loads(entry.data)) for entry in outbox.after(0, 99)[0]]


def kept(path: Path) -> list[tuple[str, int, int, int]]:
    with closing(sqlite3.connect(path)) as db:
        return [(o.sku, o.amount_minor, o.starts_at, o.ends_at) for o in read(db)]


def test_an_override_and_what_tells_hq_of_it_are_one_transaction(outbox: Outbox) -> None:
    overrides.put(outbox, "4011", 149, "EUR", NOW_S + 60, "ripe", NOW_MS)
    told = {
        "sku": "4011",
        "amount_minor": 149,
        "currency": "EUR",
        "starts_at": rfc3339(NOW_MS),
        "ends_at": rfc3339(NOW_MS + 60_000),
        "reason": "ripe",
    }
    assert entries(outbox) == [(OVERRIDE_SET, told)]
    with closing(sqlite3.connect(outbox.path)) as db:
        db.execute("CREATE TRIGGER no BEFORE INSERT ON overrides BEGIN SELECT raise(ABORT, 'no'); END")
        db.commit()
    with pytest.raises(Exception, match="no"):
        overrides.put(outbox, "4046", 1, "EUR", NOW_S + 60, "ripe", NOW_MS)
    assert entries(outbox) == [(OVERRIDE_SET, told)], "an override that was not kept is not told"
    assert kept(outbox.path) == [("4011", 149, NOW_S, NOW_S + 60)]


def test_a_new_override_ends_the_old_one_in_its_own_second(outbox: Outbox) -> None:
    overrides.put(outbox, "1", 100, "EUR", NOW_S + 60, "a", NOW_MS)
    overrides.put(outbox, "1", 200, "EUR", NOW_S + 90, "b", NOW_MS + 10_000)
    overrides.put(outbox, "1", 300, "EUR", NOW_S + 95, "c", NOW_MS + 10_000)
    assert kept(outbox.path) == [
        ("1", 100, NOW_S, NOW_S + 10),
        ("1", 200, NOW_S + 10, NOW_S + 10),
        ("1", 300, NOW_S + 10, NOW_S + 95),
    ]


def test_a_clock_set_back_leaves_no_two_in_force(outbox: Outbox) -> None:
    overrides.put(outbox, "1", 100, "EUR", NOW_S + 99, "by a clock that is ahead", NOW_MS + 50_000)
    overrides.put(outbox, "1", 200, "EUR", NOW_S + 90, "set right", NOW_MS)
    assert kept(outbox.path) == [("1", 100, NOW_S + 50, NOW_S + 50), ("1", 200, NOW_S, NOW_S + 90)]


def test_a_withdrawal_ends_it_and_is_told(outbox: Outbox) -> None:
    overrides.put(outbox, "1", 100, "EUR", NOW_S + 60, "a", NOW_MS)
    done = overrides.withdraw(outbox, "1", NOW_MS + 5_000)
    assert (done.ends_at, done.until) == (NOW_S + 5, NOW_S + 60)
    assert entries(outbox)[1:] == [(OVERRIDE_WITHDRAWN, {"sku": "1", "withdrawn_at": rfc3339(NOW_MS + 5_000)})]
    for sku in ("1", "2"):
        with pytest.raises(NotFound):
            overrides.withdraw(outbox, sku, NOW_MS + 6_000)
    assert len(entries(outbox)) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sku": ""}, "sku"),
        ({"sku": "x" * 65}, "sku"),
        ({"sku": "a\tb"}, "sku"),
        ({"amount_minor": -1}, "amount"),
        ({"amount_minor": 10**16}, "amount"),
        ({"currency": "EUX"}, "ISO 4217"),
        ({"until": NOW_S}, "in the past"),
        ({"until": 10**12}, "9999"),
        ({"reason": " "}, "reason"),
        ({"reason": "a\nb"}, "reason"),
        ({"reason": "x" * 201}, "reason"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(outbox: Outbox, change: dict[str, Any], says: str) -> None:
    good: dict[str, Any] = {"sku": "1", "amount_minor": 1, "currency": "EUR", "until": NOW_S + 60, "reason": "r"}
    with pytest.raises(BadArgument, match=says):
        overrides.put(outbox, **(good | change), wall_ms=NOW_MS)
    assert (entries(outbox), kept(outbox.path)) == ([], [])
    overrides.put(outbox, **good, wall_ms=NOW_MS)


def test_their_number_is_bounded_and_a_full_outbox_refuses(
    outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overrides, "IN_FORCE_MAX", 2)
    for sku in ("1", "2"):
        overrides.put(outbox, sku, 1, "EUR", NOW_S + 60, "r", NOW_MS)
    with pytest.raises(BadArgument, match="2 overrides are in force"):
        overrides.put(outbox, "3", 1, "EUR", NOW_S + 60, "r", NOW_MS)
    assert len(entries(outbox)) == 2
    overrides.put(outbox, "3", 1, "EUR", NOW_S + 99, "r", NOW_MS + 60_000)
    with Outbox(outbox.path, 1) as full, pytest.raises(OutboxFull):
        overrides.put(full, "4", 1, "EUR", NOW_S + 99, "r", NOW_MS + 60_000)


def test_one_that_is_over_is_kept_for_ninety_days(outbox: Outbox) -> None:
    overrides.put(outbox, "1", 1, "EUR", NOW_S + 60, "r", NOW_MS)
    overrides.put(outbox, "2", 2, "EUR", NOW_S + 89 * DAY_S + 60, "r", NOW_MS + 89 * DAY_S * 1000)
    assert [sku for sku, *_ in kept(outbox.path)] == ["1", "2"]
    overrides.put(outbox, "2", 3, "EUR", NOW_S + 99 * DAY_S, "r", NOW_MS + 91 * DAY_S * 1000)
    assert [sku for sku, *_ in kept(outbox.path)] == ["2", "2"]


def test_a_new_epoch_says_again_what_is_in_force(outbox: Outbox) -> None:
    for sku in ("over", "withdrawn", "held"):
        overrides.put(outbox, sku, 1, "EUR", NOW_S + (9 if sku == "over" else 60), "r", NOW_MS)
    overrides.withdraw(outbox, "withdrawn", NOW_MS + 5_000)
    outbox.renew(NOW_MS + 10_000, overrides.restated)
    assert [data["sku"] for _, data in entries(outbox)[4:]] == ["held"]
    assert entries(outbox)[4][1] == entries(outbox)[2][1]


def test_tills_see_what_the_outbox_has_and_the_digest_does_not(outbox: Outbox, replica: Replica) -> None:
    mirrored = OverrideCopy(outbox.path, replica, "store-7")
    mirrored.step(0, woken=True)
    assert queries.price(replica.path, "4011", None)["amount_minor"] == 199
    overrides.put(outbox, "4011", 149, "EUR", NOW_S + DAY_S, "ripe", NOW_MS)
    mirrored.step(1, woken=True)
    assert queries.price(replica.path, "4011", None) == {
        "sku": "4011",
        "amount_minor": 149,
        "currency": "EUR",
        "kind": "override",
        "scope": "store-7",
        "starts_at": rfc3339(NOW_MS),
        "ends_at": LATER,
    }
    assert verify.scan(replica.path, PRICE).ok
    overrides.withdraw(outbox, "4011", NOW_MS)
    mirrored.step(1, woken=False)
    assert queries.price(replica.path, "4011", None)["amount_minor"] == 149, "nobody woke it"
    mirrored.step(override_copy.LOOK_EVERY_MS + 1, woken=False)
    assert queries.price(replica.path, "4011", None)["amount_minor"] == 199


def test_an_override_holds_also_where_hq_has_no_price(outbox: Outbox, replica: Replica) -> None:
    overrides.put(outbox, "4046", 89, "EUR", NOW_S + DAY_S, "new", NOW_MS)
    OverrideCopy(outbox.path, replica, "store-7").step(0, woken=True)
    found = replica.connection.execute("SELECT sku, name, amount_minor, kind, scope FROM catalog").fetchall()
    assert found == [("4046", "Avocado", 89, "override", "store-7")]
    assert replica.connection.execute("SELECT count(*) FROM current_prices WHERE sku = '4046'").fetchone() == (1,)


def test_a_rebuilt_stream_and_another_name_of_the_store_leave_it_in_force(outbox: Outbox, replica: Replica) -> None:
    overrides.put(outbox, "4011", 149, "EUR", NOW_S + DAY_S, "ripe", NOW_MS)
    OverrideCopy(outbox.path, replica, "store-7").step(0, woken=True)
    row = (1, "4011", "regular", "EUR", "[[1700000000,null,9]]")
    replica.apply(
        PRICE,
        epoch="f",
        position=1,
        digest=to_hex(row_hash(row)),
        head_seq=1,
        batches=[([row], [])],
        replace=True,
        wall_ms=NOW_MS,
    )
    replica.connection.close()
    for name in ("store-7", "store-8"):
        again = Replica.open(replica.path, ("all",), BUILT_IN)
        OverrideCopy(outbox.path, again, name).step(0, woken=True)
        found = queries.price(replica.path, "4011", None)
        assert (found["amount_minor"], found["scope"]) == (149, name)
        assert again.connection.execute("SELECT count(*) FROM prices WHERE kind = 'override'").fetchone() == (1,)
        again.connection.close()


def test_an_outbox_that_cannot_be_read_leaves_what_was_copied(outbox: Outbox, replica: Replica) -> None:
    overrides.put(outbox, "4011", 149, "EUR", NOW_S + DAY_S, "ripe", NOW_MS)
    OverrideCopy(outbox.path, replica, "store-7").step(0, woken=True)
    for broken in (outbox.path.with_name("nowhere.db"), outbox.path.with_name("rubbish.db")):
        if broken.name == "rubbish.db":
            broken.write_bytes(b"not a database " * 100)
        OverrideCopy(broken, replica, "store-7").step(0, woken=True)
        assert queries.price(replica.path, "4011", None)["amount_minor"] == 149
    outbox.close()
    for file in outbox.path.parent.glob("outbox.db*"):
        file.unlink()
    with Outbox(outbox.path):
        OverrideCopy(outbox.path, replica, "store-7").step(0, woken=True)
    assert queries.price(replica.path, "4011", None)["amount_minor"] == 199, "a new outbox has none"


def test_with_the_daemon_dead_the_command_itself_makes_it_seen_and_leaves_the_files_readable(replica: Replica) -> None:
    directory = replica.path.parent
    replica.close_for_readers()
    done = typed(directory, "override", "4011", "1.49", "--until", LATER, "--reason", "ripe", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told.pop("starts_at") == told.pop("set_at")
    assert told == {
        "sku": "4011",
        "amount_minor": 149,
        "currency": "EUR",
        "ends_at": LATER,
        "reason": "ripe",
        "seq": 1,
        "withdrawn": False,
        "effective": True,
    }
    assert json.loads(typed(directory, "price", "4011", "--json").stdout)["amount_minor"] == 149
    assert json.loads(typed(directory, "override", "--json").stdout)["overrides"][0]["told"] is False
    assert "1.49 EUR" in typed(directory, "override").stdout
    assert typed(directory, "override", "4011", "--withdraw").exit_code == 0
    assert json.loads(typed(directory, "price", "4011", "--json").stdout)["amount_minor"] == 199
    assert (directory / "outbox.db").stat().st_mode & 0o777 == FILE_MODE


def test_the_copy_without_a_daemon_leaves_the_log_for_tills_that_may_not_write(replica: Replica) -> None:
    replica.connection.close()
    with Outbox(replica.path.with_name("outbox.db")) as outbox:
        overrides.put(outbox, "4011", 149, "EUR", NOW_S + DAY_S, "ripe", NOW_MS)
    assert override_copy.copy_alone(replica.path, outbox.path, "store-7")
    assert {p.suffix for p in replica.path.parent.glob("replica.db-*")} == {".db-wal", ".db-shm"}
    assert queries.price(replica.path, "4011", None)["amount_minor"] == 149


def test_a_daemon_that_hangs_is_said_and_the_override_is_kept(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_client, "COPY_WAIT_S", 0.2)
    with lock_instance(Path(f"{replica.path}.lock")):  # type: ignore[union-attr]
        done = typed(replica.path.parent, "override", "4011", "1.49", "--until", LATER, "--reason", "r", "--json")
    assert (done.exit_code, json.loads(done.stdout)["effective"]) == (0, False)
    assert "tills do not see it yet" in done.stderr
    assert [sku for sku, *_ in kept(replica.path.with_name("outbox.db"))] == ["4011"]


def test_a_daemon_that_copies_is_waited_for(replica: Replica, outbox: Outbox) -> None:
    import threading

    stop = threading.Event()

    def daemon() -> None:
        own = Replica.open(replica.path, ("all",), BUILT_IN)
        mirrored = OverrideCopy(outbox.path, own, "store-7")
        while not stop.wait(0.01):
            mirrored.step(0, woken=True)
        own.connection.close()

    with lock_instance(Path(f"{replica.path}.lock")):  # type: ignore[union-attr]
        thread = threading.Thread(target=daemon)
        thread.start()
        done = typed(replica.path.parent, "override", "4011", "1.49", "--until", LATER, "--reason", "r")
        stop.set()
        thread.join()
    shown = done.stdout.splitlines()[-1]  # behind the daemon's log
    assert (done.exit_code, shown, done.stderr) == (0, f"4011 costs 1.49 EUR until {LATER}", "")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["4011", "1.499", "--until", LATER, "--reason", "r"], 1, "EUR has 2"),
        (["--until", LATER, "--reason", "r", "--", "4011", "-1"], 1, "'-1' is negative"),
        (["4011", "1,49", "--until", LATER, "--reason", "r"], 1, "decimal point"),
        (["4011", "1", "--until", "2020-01-01", "--reason", "r"], 1, "until 2020-01-01T00:00:00Z is in the past"),
        (["4011", "1", "--until", "soon", "--reason", "r"], 1, "until 'soon' is not a time"),
        (["4011", "1", "--until", "2099-01-01T10:00", "--reason", "r"], 1, "lacks Z or an offset"),
        (["4011", "1", "--until", LATER, "--reason", " "], 1, "reason ' ' must be"),
        (["4011", "1", "--until", LATER], 2, "needs AMOUNT, --until and --reason"),
        (["4011", "--until", LATER, "--reason", "r"], 2, "needs AMOUNT, --until and --reason"),
        (["--reason", "r"], 2, "name the SKU"),
        (["4011", "1", "--withdraw"], 2, "takes a SKU and nothing else"),
        (["4011", "--withdraw"], 1, "no override of 4011 is in force"),
        (["4012", "1", "--until", LATER, "--reason", "r"], 1, "knows no SKU 4012"),
        (["4046", "1", "--until", LATER, "--reason", "r"], 1, "no price now to take the currency from"),
        (["4012", "1", "--until", LATER, "--reason", "r", "--force"], 1, "no price now to take the currency from"),
        (["4011", "1", "--until", LATER, "--reason", "r", "--currency", "USD"], 1, "is priced in EUR, not in USD"),
        (["4046", "1", "--until", LATER, "--reason", "r", "--currency", "XYZ"], 1, "no ISO 4217 code"),
    ],
)
def test_a_command_that_makes_no_sense_is_one_clear_line(
    replica: Replica, words: list[str], code: int, says: str
) -> None:
    done = typed(replica.path.parent, "override", *words)
    assert (done.exit_code, done.stdout) == (code, "")
    assert says in done.stderr
    outbox = replica.path.with_name("outbox.db")
    assert not outbox.exists() or kept(outbox) == []


@pytest.mark.parametrize(
    "words",
    [
        ["4046", "0.89", "--currency", "EUR"],
        ["4012", "120", "--currency", "JPY", "--force"],
        ["4011", "1.10", "--currency", "USD", "--force"],
    ],
)
def test_what_is_said_on_purpose_is_done(replica: Replica, words: list[str]) -> None:
    directory = replica.path.parent
    done = typed(directory, "override", *words, "--until", LATER, "--reason", "r")
    assert (done.exit_code, done.stderr) == (0, "")
    found = json.loads(typed(directory, "price", words[0], "--json").stdout)
    assert (found["kind"], found["currency"]) == ("override", words[3])


def test_without_a_replica_an_override_waits_for_one(tmp_path: Path) -> None:
    words = ("override", "1", "1", "--until", LATER, "--reason", "r", "--currency", "EUR")
    refused = typed(tmp_path, *words)
    assert (refused.exit_code, "there is no replica" in refused.stderr) == (1, True)
    done = typed(tmp_path, *words, "--force")
    assert (done.exit_code, "tills do not see it yet" in done.stderr) == (0, True)
    replica = Replica.open(tmp_path / "replica.db", ("all",), BUILT_IN)
    OverrideCopy(tmp_path / "outbox.db", replica, "s").step(0, woken=True)
    assert queries.price(tmp_path / "replica.db", "1", None)["amount_minor"] == 100
    replica.connection.close()


def batch(store: str, epoch: str, first: int, *told: tuple[str, str]) -> OutboxBatch:
    told_entries = tuple(Entry(first + n, kind, NOW_MS, text) for n, (kind, text) in enumerate(told))
    return OutboxBatch(store, epoch, first, first + len(told) - 1, first - 1, told_entries, ())


def said(sku: str, amount: int, ends_min: int) -> tuple[str, str]:
    text = {
        "sku": sku,
        "amount_minor": amount,
        "currency": "EUR",
        "starts_at": rfc3339(NOW_MS),
        "ends_at": rfc3339((NOW_S + ends_min * 60) * 1000),
        "reason": "r",
    }
    return OVERRIDE_SET, json.dumps(text)


def withdrawn(sku: str) -> tuple[str, str]:
    return OVERRIDE_WITHDRAWN, json.dumps({"sku": sku, "withdrawn_at": rfc3339(NOW_MS)})


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """An inbox to which two stores have sent; one of them was replaced meanwhile."""
    path = inbox_path(tmp_path / "hq.db")
    inbox = StoreInbox.open(path)
    old, new = "000000000001-00000000", "000000000002-00000000"
    rubbish = [
        (OVERRIDE_SET, "1"),
        (OVERRIDE_SET, '{"sku":"bad"}'),
        (OVERRIDE_WITHDRAWN, "[]"),
        (OVERRIDE_SET, said("bad", -1, 60)[1]),
        (OVERRIDE_SET, said("bad", 1, 60)[1].replace("EUR", "?")),
        (OVERRIDE_SET, said("bad", 1, 60)[1].replace(rfc3339(NOW_MS), "soon")),
    ]
    with inbox.transaction():
        inbox.put(batch("west", old, 1, said("gone", 5, 60)), 0, NOW_MS)
        first = (said("a", 100, 60), said("b", 200, 60), said("c", 300, 10), ("sale.total", "1"), *rubbish)
        inbox.put(batch("west", new, 1, *first), 0, NOW_MS + 1)
        inbox.put(batch("east", old, 1, said("a", 110, 60)), 0, NOW_MS + 1)
        inbox.put(batch("west", new, 11, said("a", 101, 90), withdrawn("b")), 10, NOW_MS + 2)
    inbox.connection.close()
    return path


def test_hq_knows_what_each_store_has_in_force(told: Path) -> None:
    with reading(told) as db:
        assert db is not None
        for at, expected in (
            (NOW_S, [("east", "a", 110), ("west", "a", 101), ("west", "c", 300)]),
            (NOW_S + 10 * 60, [("east", "a", 110), ("west", "a", 101)]),
            (NOW_S + 60 * 60, [("west", "a", 101)]),
            (NOW_S + 90 * 60, []),
        ):
            assert [(o.store, o.sku, o.amount_minor) for o in in_force(db, at)] == expected
        assert [o.sku for o in in_force(db, NOW_S, "east")] == ["a"]


def test_hq_looks_only_at_the_entries_about_overrides(told: Path) -> None:
    with closing(sqlite3.connect(told)) as db:
        seen: list[str] = []
        db.set_trace_callback(seen.append)
        in_force(db, NOW_S)
        (asked,) = [sql for sql in seen if "FROM entries" in sql]
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {asked}")]
    assert plan == ["SCAN entries USING INDEX about_overrides"]


def test_hq_overrides_lists_them(told: Path) -> None:
    environ = {"HQ_DB": str(told.with_name("hq.db")), "HQ_CONFIG": ""}
    found = json.loads(CliRunner().invoke(hq.cli.main, ["overrides", "--json"], env=environ).stdout)["overrides"]
    assert found[0] == {
        "store": "east",
        "sku": "a",
        "amount_minor": 110,
        "currency": "EUR",
        "starts_at": rfc3339(NOW_MS),
        "ends_at": rfc3339(NOW_MS + 3_600_000),
        "reason": "r",
        "received_at": rfc3339(NOW_MS),
        "cursor": found[0]["cursor"],
    }
    lines = CliRunner().invoke(hq.cli.main, ["overrides", "--store", "west"], env=environ).stdout.splitlines()
    assert lines[0].split()[:4] == ["west", "a", "1.01", "EUR"]


def test_an_inbox_that_is_pruned_still_knows_what_is_in_force(told: Path) -> None:
    inbox = StoreInbox.open(told)
    assert inbox.prune(NOW_MS + DAY_S * 1000, 99) == 1, "the sale"
    inbox.connection.close()
    with reading(told) as db:
        assert db is not None
        assert [o.sku for o in in_force(db, NOW_S)] == ["a", "a", "c"]


def test_hq_without_an_inbox_has_none(tmp_path: Path) -> None:
    environ = {"HQ_DB": str(tmp_path / "hq.db"), "HQ_CONFIG": ""}
    done = CliRunner().invoke(hq.cli.main, ["overrides", "--json"], env=environ)
    assert (done.exit_code, done.stdout) == (0, '{"overrides": []}\n')
