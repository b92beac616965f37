"""Contexts that a chain declares, at a store: tables, words, commands; and a declaration that is not the one of HQ."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.messages import Head, Live, encode_head, encode_live
from storelink.contract.rows import EMPTY, to_hex, total
from storelink.contract.streams import Stream
from storelink.transport.memory import MemoryBroker, MemoryLink
from storelink.transport.port import Connected, Received
from storenode.cli import main
from storenode.core import advice
from storenode.core.phases import Phase
from storenode.follow.router import Router
from storenode.follow.spool import MemorySpool
from storenode.replica import queries, verify
from storenode.replica.status import status_document
from storenode.replica.writer import Replica
from tests.registry import EXAMPLE, TAX, WIDER_TAX, registry_of

EPOCH, LATER = "000000000001-00000000", "000000000002-00000000"
TAX_ALL = Stream.parse("tax/all", registry_of(TAX))
PROMOTION = Stream.parse("promotion/all", registry_of(EXAMPLE.read_text()))
FULL, HALF = (1, "full", 1900), (2, "half", 700)
NOW_MS = 1_760_000_000_000


class Store:
    """One replica, opened by one daemon after the other, each of which knows what its file declares."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "replica.db"
        self.file = directory / "contexts.toml"
        self.replica: Replica | None = None

    def open(self, text: str | None, scopes: Sequence[str] = ("all",)) -> Replica:
        self.close()
        self.file.write_text(text or "")
        self.replica = Replica.open(self.path, scopes, registry_of(text or ""))
        return self.replica

    def close(self) -> None:
        if self.replica is not None:
            self.replica.connection.close()
            self.replica = None

    def run(self, line: str) -> Result:
        """Type a command, which knows what the file declares by now."""
        environ = {"STORENODE_DB": str(self.path), "STORENODE_CONFIG": "", "STORENODE_CONTEXTS": str(self.file)}
        return CliRunner().invoke(main, line.split(" "), env=environ, catch_exceptions=False)

    def json(self, line: str) -> Any:
        return json.loads(self.run(line + " --json").stdout)

    def asked(self, sql: str) -> list[tuple[Any, ...]]:
        db = sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.close()


def put(replica: Replica, stream: Stream, *rows: Row, epoch: str = EPOCH, replace: bool = False) -> None:
    position = max(int(str(row[0])) for row in rows)
    replica.apply(
        Stream.parse(stream.name, replica.contexts),
        epoch=epoch,
        position=position,
        digest=to_hex(total(rows)),
        head_seq=position,
        batches=[(rows, [])],
        replace=replace,
        wall_ms=NOW_MS,
    )


def test_a_declared_context_is_kept_typed_and_proven(store: Store) -> None:
    replica = store.open(TAX)
    put(replica, TAX_ALL, FULL, HALF)
    assert store.asked("SELECT tax_class, rate_bp, typeof(rate_bp), scope FROM taxes ORDER BY seq") == [
        ("full", 1900, "integer", "all"),
        ("half", 700, "integer", "all"),
    ]
    assert verify.scan(store.path, TAX_ALL).ok
    assert store.json("get tax half") == {"scope": "all", "seq": 2, "tax_class": "half", "rate_bp": 700}
    assert "is not one of product, price, tax" in store.run("get fruit 1").stderr
    assert store.run("get fruit 1").exit_code == 2


def test_kinds_are_shown_as_what_they_are(store: Store) -> None:
    replica = store.open(EXAMPLE.read_text())
    put(replica, PROMOTION, (1, "S1", "Summer", None, "everyone", "2026-06-01", None, 2000, 1, '{"a":1}'))
    found = store.json("get promotion S1")
    assert (found["stackable"], found["minimum_minor"], found["rules"]) == (True, 2000, {"a": 1})


def test_words_of_searchable_columns_are_found_as_soon_as_the_rows_are_there(store: Store) -> None:
    replica = store.open(EXAMPLE.read_text())
    summer: Row = (1, "S1", "Summer Sale", "Crème for all", "everyone", "2026-06-01", None, None, 0, None)
    winter: Row = (2, "W1", "Winter", None, "members", "2026-12-01", None, None, 0, None)
    put(replica, PROMOTION, summer, winter)
    assert [row["code"] for row in store.json("search --context promotion creme sal")] == ["S1"]
    assert store.asked("SELECT title FROM promotions_search WHERE promotions_search MATCH 'win*'") == [("Winter",)]
    put(replica, PROMOTION, (3, "W1", "Cold days", *winter[3:]))
    assert store.json("search --context promotion winter") == []
    assert [row["title"] for row in store.json("search --context promotion cold")] == ["Cold days"]
    put(replica, PROMOTION, (1, *winter[1:]), epoch=LATER, replace=True)
    assert store.json("search --context promotion summer") == []
    assert [row["code"] for row in store.json("search --context promotion winter")] == ["W1"]
    replica.connection.execute("INSERT INTO promotions_search(promotions_search, rank) VALUES('integrity-check', 1)")


def test_an_index_of_words_that_drifted_is_built_anew_at_the_next_start(store: Store) -> None:
    replica = store.open(EXAMPLE.read_text())
    put(replica, PROMOTION, (1, "S1", "Summer", None, "everyone", "2026-06-01", None, None, 0, None))
    replica.connection.execute("INSERT INTO promotions_search(promotions_search) VALUES('delete-all')")
    assert store.json("search --context promotion summer") == []
    store.open(EXAMPLE.read_text())
    assert len(store.json("search --context promotion summer")) == 1


def test_search_may_be_declared_later_and_be_taken_back(store: Store) -> None:
    without = EXAMPLE.read_text().replace('search = ["title", "slogan"]\n', "")
    replica = store.open(without)
    put(replica, PROMOTION, (1, "S1", "Summer", "Hot", "everyone", "2026-06-01", None, None, 0, None))
    refused = store.run("search --context promotion summer")
    assert (refused.exit_code, "no column" in refused.stderr) == (1, True)
    store.open(EXAMPLE.read_text())
    assert len(store.json("search --context promotion hot")) == 1
    store.open(EXAMPLE.read_text().replace('"title", "slogan"]', '"title"]'))
    assert store.json("search --context promotion hot") == []
    put(store.open(without), PROMOTION, (2, "S1", "Autumn", None, "everyone", "2026-06-01", None, None, 0, None))
    assert store.asked("SELECT name FROM sqlite_master WHERE name LIKE 'promotions_search%'") == []


def test_a_declared_context_that_hq_never_announced_spoils_nothing(store: Store) -> None:
    replica = store.open(TAX)
    put(replica, Stream.parse("price/all", BUILT_IN), (1, "4011", "regular", "EUR", "[[1700000000,null,199]]"))
    put(replica, Stream.parse("product/all", BUILT_IN), (1, "4011", *(None,) * 12))
    document = status_document(store.path, replica.contexts)
    assert document["streams"]["tax/all"]["state"] == "bootstrapping"
    assert store.json("status")["state"] != "bootstrapping"
    assert store.run("status").exit_code == 1, "the daemon does not run"
    assert store.run("verify").exit_code == 0


def test_a_scope_whose_context_is_not_declared_is_said_and_the_rest_goes_on(store: Store) -> None:
    replica = store.open(None, ("all", "tax/all"))
    text = "scopes name tax/all, but tax is not declared here"
    assert replica.left_out == {"tax": text}
    assert queries.streams(store.path, BUILT_IN) == [
        Stream.parse("price/all", BUILT_IN),
        Stream.parse("product/all", BUILT_IN),
    ]
    assert store.json("status")["contexts"] == {"tax": {"problem": text}}
    assert f"tax: {text}." in store.run("status").stdout
    assert store.open(TAX, ("all",)).left_out == {}
    assert store.json("status")["contexts"] == {}


def test_rows_of_a_context_whose_declaration_is_gone_stay_and_are_said_to(store: Store) -> None:
    put(store.open(TAX), TAX_ALL, FULL)
    replica = store.open(None)
    assert list(replica.left_out) == ["tax"]
    assert store.asked("SELECT tax_class FROM taxes") == [("full",)]
    assert store.asked("SELECT state FROM freshness WHERE stream = 'tax/all'") == [("offline",)]
    assert "is not declared here any more" in store.run("status").stdout
    assert store.json("verify")["streams"].keys() == {"price/all", "product/all"}
    assert store.open(TAX).state(TAX_ALL).position == 1
    assert verify.scan(store.path, TAX_ALL).ok


def test_gained_columns_keep_the_rows_readable_and_proven_until_they_are_fetched_anew(store: Store) -> None:
    put(store.open(TAX), TAX_ALL, FULL, HALF)
    replica = store.open(WIDER_TAX)
    assert store.asked("SELECT tax_class, rate_bp, label FROM taxes ORDER BY seq") == [
        ("full", 1900, None),
        ("half", 700, None),
    ]
    state = replica.state(TAX_ALL)
    assert (state.epoch, state.position, state.rebuild_due) == (EPOCH, 2, "columns")
    assert verify.scan(store.path, TAX_ALL).ok, "as HQ had them"
    even_wider = WIDER_TAX.rstrip("]\n") + ', { name = "note" }]\n'
    replica = store.open(even_wider)
    assert verify.scan(store.path, TAX_ALL).ok, "gained twice before it was fetched anew"
    put(replica, TAX_ALL, (2, "half", 700, "Reduced", 1, "n"), epoch=LATER, replace=True)
    assert replica.state(TAX_ALL).rebuild_due is None
    scan = verify.scan(store.path, TAX_ALL)
    assert (scan.ok, scan.rows) == (True, 1)
    replica.set_rebuild_due(TAX_ALL, "asked")
    assert verify.scan(store.path, TAX_ALL).ok, "a later rebuild has nothing to do with the columns that were"
    assert store.asked("SELECT rebuild_reason FROM streams WHERE stream = 'tax/all'") == [("",)]


def test_a_command_that_knows_a_newer_file_than_the_daemon_reads_what_is_there(store: Store) -> None:
    put(store.open(None), Stream.parse("price/all", BUILT_IN), (1, "4011", "regular", "EUR", "[[1700000000,null,199]]"))
    store.file.write_text(TAX)
    assert "this replica has no tax yet" in store.run("get tax full").stderr
    assert "restart" in store.run("get tax full").stderr
    put(store.open(TAX), TAX_ALL, FULL)
    store.file.write_text(WIDER_TAX + 'search = ["label"]\n')
    assert store.json("get tax full")["rate_bp"] == 1900
    assert store.json("verify")["streams"]["tax/all"]["ok"] is True
    assert "no index of tax yet" in store.run("search --context tax x").stderr
    assert store.run("status").exit_code in (1, 2)


def test_a_declaration_that_was_taken_back_serves_on(store: Store) -> None:
    put(store.open(TAX), TAX_ALL, FULL)
    store.open(WIDER_TAX)
    replica = store.open(TAX)
    assert replica.left_out == {}
    put(replica, TAX_ALL, (1, "full", 2000), epoch=LATER, replace=True)
    assert verify.scan(store.path, TAX_ALL).ok
    assert store.open(WIDER_TAX).state(TAX_ALL).rebuild_due == "columns"


def test_what_is_held_by_old_rules_is_fetched_anew_under_new_ones(store: Store) -> None:
    replica = store.open(TAX)
    put(replica, TAX_ALL, FULL)
    assert store.open(TAX.replace("10000", "20000")).state(TAX_ALL).rebuild_due is None
    replica = store.open(TAX)
    replica.connection.execute("INSERT INTO quarantine VALUES('tax/all', '[\"x\"]', 1, '[1,\"x\",20000]', 'r', 0)")
    assert store.open(TAX.replace("10000", "20000")).state(TAX_ALL).rebuild_due == "columns"


@pytest.mark.parametrize(
    ("old", "new"),
    [('"tax_class" }', '"tax_class" }, { name = "country" }'), (', kind = "integer", min = 0, max = 10000', "")],
)
def test_other_keys_or_types_leave_the_context_out_with_its_rows(store: Store, old: str, new: str) -> None:
    put(store.open(TAX), TAX_ALL, FULL)
    replica = store.open(TAX.replace(old, new))
    assert "declared otherwise than the replica's rows have them" in replica.left_out["tax"]
    assert store.asked("SELECT tax_class, rate_bp FROM taxes") == [("full", 1900)]
    assert store.open(TAX).left_out == {}
    store.close()
    store.path.unlink()
    store.open(TAX)
    assert store.open(TAX.replace(old, new)).left_out == {}, "nothing was there yet"


def test_a_table_of_the_replicas_own_is_never_taken(store: Store) -> None:
    replica = store.open(None)
    replica.connection.execute("CREATE TABLE taxes (x)")
    assert "has a table taxes of its own" in store.open(TAX).left_out["tax"]
    replica = store.open(TAX.replace('"taxes"', '"tax_rates"'))
    assert replica.left_out == {}
    put(replica, TAX_ALL, FULL)
    replica.connection.execute("DROP TABLE taxes")
    store.open(TAX)
    assert store.asked("SELECT tax_class FROM taxes") == [("full",)], "a table is renamed with its rows"


class Line:
    """A worker over a link in memory, fed by hand."""

    def __init__(self, replica: Replica, *streams: Stream) -> None:
        self.link = MemoryLink(MemoryBroker(Random(0)), "store", lambda _: None)
        known = tuple(Stream.parse(stream.name, replica.contexts) for stream in streams)
        self.worker = Router.open("t", replica, lambda _: MemorySpool(), self.link, known)
        self.subscribed: set[str] = set()
        self.link.subscribe = lambda topics: self.subscribed.update(topics)  # type: ignore[method-assign]
        self.link.unsubscribe = lambda topics: self.subscribed.difference_update(topics)  # type: ignore[method-assign]
        self.now_ms = 0
        self.worker.handle(Connected(1), 0, NOW_MS)

    def send(self, message: Any) -> None:
        self.now_ms += 100
        self.worker.handle(Received(message), self.now_ms, NOW_MS + self.now_ms)
        self.worker.flush(NOW_MS + self.now_ms)
        self.worker.step(self.now_ms)

    @property
    def follower(self) -> Any:
        return self.worker.followers[TAX_ALL]


def announced(text: str, seq: int, *rows: Row, epoch: str = EPOCH) -> tuple[Any, Any]:
    """What an HQ of that declaration sends: its head, and a heartbeat."""
    stream = Stream.parse("tax/all", registry_of(text))
    digest = to_hex(total(rows)) if rows else EMPTY
    return (
        encode_head("t", Head(stream, epoch, seq, digest, len(rows), 0, NOW_MS, (), rows, ())),
        encode_live("t", Live(stream, epoch, seq + 1, seq, digest, digest, True, NOW_MS)),
    )


def test_a_store_behind_hqs_declaration_halts_that_stream_alone_and_says_which_column(store: Store) -> None:
    narrow_head, _ = announced(TAX, 1, FULL)
    wide_head, wide_beat = announced(WIDER_TAX, 1, (*FULL, None, 0), epoch=LATER)
    line = Line(store.open(TAX), TAX_ALL, Stream.parse("price/all", BUILT_IN))
    line.send(narrow_head)
    assert line.follower.phase is Phase.LIVE
    line.send(wide_beat)
    assert (line.follower.phase, line.follower.state) == (Phase.HALTED, "catching_up")
    assert "t/live/tax/all" in line.subscribed
    assert "t/head/tax/all" not in line.subscribed, "nothing is fetched that cannot be read"
    text = "HQ's tax has columns label, reduced that the declaration here lacks"
    assert store.json("status")["contexts"] == {"tax": {"problem": text}}
    assert f"tax: {text}." in store.run("status").stdout
    assert store.asked("SELECT tax_class FROM taxes") == [("full",)]
    assert line.worker.followers[Stream.parse("price/all", BUILT_IN)].phase is Phase.AWAITING_HEAD

    line = Line(store.open(WIDER_TAX), TAX_ALL)
    assert store.json("status")["contexts"] == {}
    assert line.follower.state == "rebuilding"
    line.send(wide_head)
    assert (line.follower.phase, line.follower.state) == (Phase.LIVE, "live")
    assert store.asked("SELECT tax_class, reduced FROM taxes") == [("full", 0)]
    assert verify.scan(store.path, TAX_ALL).ok
    assert store.asked("SELECT rebuild_reason FROM streams WHERE stream = 'tax/all'") == [("columns",)]


def test_a_store_ahead_of_hqs_declaration_waits_and_goes_on_by_itself(store: Store) -> None:
    narrow_head, narrow_beat = announced(TAX, 1, FULL)
    wide_head, wide_beat = announced(WIDER_TAX, 1, (*FULL, None, 0), epoch=LATER)
    Line(store.open(TAX), TAX_ALL).send(narrow_head)
    line = Line(store.open(WIDER_TAX), TAX_ALL)
    line.send(narrow_head)
    line.send(narrow_beat)
    assert (line.follower.phase, line.follower.state) == (Phase.HALTED, "catching_up")
    text = "HQ's tax lacks columns label, reduced that the declaration here has"
    assert store.json("status")["contexts"] == {"tax": {"problem": text}}
    assert store.asked("SELECT tax_class FROM taxes") == [("full",)]
    assert verify.scan(store.path, TAX_ALL).ok
    line.worker.step(10**9)
    assert "t/head/tax/all" not in line.subscribed, "time alone asks for nothing"
    line.send(wide_beat)
    assert line.follower.phase is Phase.AWAITING_HEAD
    assert "t/head/tax/all" in line.subscribed
    line.send(wide_head)
    assert (line.follower.state, store.json("status")["contexts"]) == ("live", {})
    assert store.asked("SELECT tax_class, reduced FROM taxes") == [("full", 0)]


def test_a_store_that_has_nothing_of_a_halted_context_yet_sells_on(store: Store) -> None:
    _, wide_beat = announced(WIDER_TAX, 1, (*FULL, None, 0))
    replica = store.open(TAX)
    put(replica, Stream.parse("price/all", BUILT_IN), (1, "4011", "regular", "EUR", "[[1700000000,null,199]]"))
    put(replica, Stream.parse("product/all", BUILT_IN), (1, "4011", *(None,) * 12))
    line = Line(replica, TAX_ALL)
    line.send(wide_beat)
    assert line.follower.state == "bootstrapping"
    assert store.run("status").exit_code == 1, "the daemon does not run, and that is all"


def test_status_names_the_problem_of_a_context_and_not_its_streams() -> None:
    stream = {"state": "catching_up", "verified_ok": None, "quarantined": 0, "lag_events": 3, "epoch": EPOCH}
    found = advice.stream("tax/all", stream | {"state": "bootstrapping", "epoch": None}, connected=True)
    assert found == advice.Finding(advice.WARN, "tax/all: HQ has not announced it yet.")
