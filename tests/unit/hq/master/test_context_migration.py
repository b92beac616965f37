"""Contexts that a chain declares, at HQ: their tables, what is typed for them, and further columns later on."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hq.cli import main
from hq.master.store import Master
from hq.publish.publication import Publication
from hq.publish.sizes import Sizes
from hq.publish.stream_messages import StreamMessages
from storelink.contract.messages import decode_head, decode_live
from storelink.contract.rows import to_hex, total
from storelink.contract.streams import Stream
from tests.registry import EXAMPLE, TAX, WIDER_TAX, registry_of

TAX_ALL = "tax/all"


class Desk:
    """Someone at a terminal; every command is a process of its own, that knows what its file declares."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.db = directory / "hq.db"
        self.file: Path | None = directory / "contexts.toml"

    def declare(self, text: str | None) -> None:
        self.file = None if text is None else self.directory / "contexts.toml"
        if self.file is not None and text is not None:
            self.file.write_text(text)

    def run(self, line: str, stdin: str | None = None) -> Result:
        environ = {"HQ_DB": str(self.db), "HQ_CONFIG": "", "HQ_CONTEXTS": str(self.file) if self.file else None}
        return CliRunner().invoke(main, line.split(" "), input=stdin, env=environ, catch_exceptions=False)

    def json(self, line: str, stdin: str | None = None) -> Any:
        result = self.run(line + " --json", stdin)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def refused(self, line: str, stdin: str | None = None) -> str:
        result = self.run(line, stdin)
        assert (result.exit_code, result.stdout) == (1, ""), result.output
        return result.stderr

    def asked(self, sql: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.db)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def feed(self, content: str, name: str = "f.csv") -> str:
        (self.directory / name).write_text(content)
        return str(self.directory / name)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    desk.declare(EXAMPLE.read_text())
    assert desk.run("init").exit_code == 0
    return desk


def test_init_makes_a_stream_for_every_declared_context(desk: Desk) -> None:
    assert desk.json("init")["streams"] == ["price/all", "product/all", "promotion/all", TAX_ALL]


def test_what_is_typed_is_kept_as_its_kind_says(desk: Desk) -> None:
    desk.json("publish promotion code=S1 title=A starts_on=2026-06-01 minimum_minor=20 stackable=Yes audience=members")
    rows = desk.asked("SELECT minimum_minor, stackable, audience, starts_on, typeof(stackable) FROM master_promotion")
    assert rows == [(2000, 1, "members", "2026-06-01", "integer")]
    assert desk.json("publish promotion code=S1 stackable=true minimum_minor=20.00")["events"] == 0
    assert desk.json("publish promotion code=S1 minimum_minor=")["events"] == 1
    assert desk.asked("SELECT minimum_minor, stackable FROM master_promotion") == [(None, 1)]


def test_a_new_entity_gets_the_defaults_of_what_is_not_named(desk: Desk) -> None:
    desk.json("publish promotion code=S1 title=Summer starts_on=2026-06-01")
    assert desk.asked("SELECT audience, stackable, slogan FROM master_promotion") == [("everyone", 0, None)]
    desk.json("publish tax tax_class=full rate_bp=1900")
    assert desk.asked("SELECT country FROM master_tax") == [("DE",)]
    feed = desk.feed("code,title,starts_on\nS2,Sale,2026-07-01\n")
    assert desk.json(f"import promotion {feed}")["new"] == 1
    assert desk.asked("SELECT audience, stackable FROM master_promotion WHERE code = 'S2'") == [("everyone", 0)]
    assert desk.json(f"import promotion {feed}")["events"] == 0


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("tax tax_class=full rate_bp=19.5", "rate_bp: '19.5' is not a whole number"),
        ("tax tax_class=full rate_bp=10001", "rate_bp: 10001 must be between 0 and 10000"),
        ("tax tax_class=full", "rate_bp: is missing"),
        ("tax tax_class=full rate_bp=1 valid_from=2026-02-30", "valid_from: '2026-02-30' is no date"),
        ("promotion code=1 title=A starts_on=2026-06-01 minimum_minor=1.999", "EUR has 2"),
        ("promotion code=1 title=A starts_on=2026-06-01 minimum_minor=-1", "is negative"),
        ("promotion code=1 title=A starts_on=2026-06-01 stackable=maybe", "stackable: 'maybe' must be true or false"),
        ("promotion code=1 title=A starts_on=2026-06-01 audience=staff", "must be one of everyone, members"),
        ("promotion code=1 title=A starts_on=2026-06-01 rules=[]", "must be a JSON object"),
        ("promotion code=1 title=A starts=2026-06-01", "did you mean starts_on?"),
    ],
)
def test_what_breaks_a_rule_of_the_declaration_is_refused(desk: Desk, fields: str, says: str) -> None:
    assert says in desk.refused(f"publish {fields}")
    assert desk.json("status")["streams"][TAX_ALL]["head_seq"] == 0


def test_feeds_are_compared_by_what_is_kept(desk: Desk) -> None:
    feed = desk.feed("tax_class,country,rate_bp\nfull,DE,1900\nfull,FR,2000\nhalf,DE,0700\n")
    assert desk.json(f"import tax {feed}")["new"] == 3
    again = desk.feed("tax_class,country,rate_bp\nfull,DE,1900\nfull,FR,2100\nhalf,DE,700\n")
    facts = desk.json(f"import tax {again}")
    assert (facts["changed"], facts["unchanged"]) == (1, 2)
    lines = '{"tax_class":"half","country":"DE","rate_bp":700}\n{"tax_class":"none","rate_bp":0}\n'
    assert desk.json("publish tax --stdin", lines)["events"] == 1
    assert "line 2, field rate_bp" in desk.refused(f"import tax {desk.feed('tax_class,rate_bp' + chr(10) + 'a,x')}")
    ndjson = desk.feed('{"code":"A","title":"T","starts_on":"2026-06-01","stackable":true}\n', "f.ndjson")
    assert desk.json(f"import promotion {ndjson}")["new"] == 1
    assert desk.asked("SELECT stackable FROM master_promotion") == [(1,)]
    assert desk.run("verify").exit_code == 0


def test_a_feed_of_a_declared_context_speaks_for_the_part_that_it_names(desk: Desk) -> None:
    """Of Germany's rates, say; `country` is DE where the feed does not name it."""
    both = "".join(f"t{i},{country},{i}\n" for i in range(25) for country in ("DE", "FR"))
    desk.json(f"import tax {desk.feed('tax_class,country,rate_bp' + chr(10) + both)}")
    german = desk.feed("tax_class,rate_bp\n" + "".join(f"t{i},{i}\n" for i in range(24)))
    assert "would delete 26 of the 50 rows of tax/all" in desk.refused(f"import tax {german} --full")
    assert desk.json(f"import tax {german} --full --where country=DE")["deleted"] == 1
    assert desk.asked("SELECT country, count(*) FROM master_tax WHERE NOT deleted GROUP BY 1") == [
        ("DE", 24),
        ("FR", 25),
    ]
    text = desk.refused(f"import tax {german} --full --where rate_bp=1900")
    assert text == "error: --where: 'rate_bp' is no key column of tax\nhint: key columns: tax_class, country\n"


def test_a_context_declared_later_gets_its_table_in_the_master_that_is_there(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.declare(None)
    desk.run("init")
    desk.run("publish product sku=1")
    assert "'tax' is not one of price, product" in desk.run("publish tax tax_class=1").stderr
    desk.declare(TAX)
    assert desk.json("publish tax tax_class=full rate_bp=1900")["head_seq"] == 1
    assert desk.json("status")["streams"].keys() == {"price/all", "product/all", TAX_ALL}


def test_an_hq_without_the_declaration_says_so_and_goes_on_with_the_rest(desk: Desk) -> None:
    desk.run("publish tax tax_class=full rate_bp=1900")
    desk.declare(None)
    result = desk.run("status --json")
    assert json.loads(result.stdout)["streams"].keys() == {"price/all", "product/all"}
    assert "warning: tax: the master has it, and it is not declared here" in result.stderr
    assert desk.json("publish product sku=1")["events"] == 1
    assert desk.run("verify").exit_code == 0


@pytest.fixture
def taxed(tmp_path: Path) -> Iterator[Desk]:
    """A desk whose tax has rows in two scopes, one of them a tombstone."""
    desk = Desk(tmp_path)
    desk.declare(TAX)
    desk.run("init")
    for line in ("tax_class=full rate_bp=1900", "tax_class=half rate_bp=700", "tax_class=none rate_bp=0"):
        desk.json(f"publish tax {line}")
    desk.json("publish tax tax_class=none --delete")
    desk.json("publish tax tax_class=full rate_bp=2000 --scope zone-west")
    yield desk


def test_gained_columns_begin_a_new_epoch_with_the_digest_of_the_longer_rows(taxed: Desk) -> None:
    before = taxed.json("status")["streams"]
    taxed.declare(WIDER_TAX)
    assert "gives the master its further columns: label, reduced" in taxed.run("status").stderr, "not by looking"
    assert taxed.json("publish tax tax_class=full rate_bp=1900")["events"] == 0
    after = taxed.json("status")["streams"]
    for name in (TAX_ALL, "tax/zone-west"):
        assert after[name]["epoch"] > before[name]["epoch"]
        assert after[name]["head_seq"] == before[name]["head_seq"]
    expected = to_hex(total([(1, "full", 1900, None, 0), (2, "half", 700, None, 0)]))
    assert after[TAX_ALL]["digest"] == expected
    assert after["product/all"] == before["product/all"]
    assert taxed.run("verify").exit_code == 0


def test_gained_columns_that_make_a_row_too_large_are_refused_before_anything_is_changed(taxed: Desk) -> None:
    before = taxed.json("status")["streams"]
    further = "".join(f', {{ name = "c{n}", default = "{"x" * 4_000}" }}' for n in range(17))
    taxed.declare(TAX.rstrip("]\n") + further + "]\n")
    said = taxed.refused("publish tax tax_class=half rate_bp=800")
    assert "tax: with the columns that it has gained, ['full'] has 68" in said
    assert "a shorter default" in said
    taxed.declare(TAX)
    assert taxed.json("status")["streams"] == before


def test_the_log_is_replayed_across_gained_columns(taxed: Desk) -> None:
    taxed.declare(WIDER_TAX)
    assert taxed.json("publish tax tax_class=half label=Reduced reduced=yes")["events"] == 1
    assert taxed.json("publish tax tax_class=none rate_bp=0")["events"] == 1
    assert taxed.json("publish tax tax_class=full --delete")["events"] == 1
    wider = WIDER_TAX.rstrip("]\n") + ', { name = "note", default = "x" }]\n'
    taxed.declare(wider)
    taxed.json("publish tax tax_class=half note=y")
    result = taxed.run("verify")
    assert result.exit_code == 0, result.output
    columns = "tax_class, rate_bp, label, reduced, note, deleted"
    assert taxed.asked(f"SELECT {columns} FROM master_tax WHERE scope = 'all' ORDER BY 1") == [
        ("full", None, None, None, None, 1),
        ("half", 700, "Reduced", 1, "y", 0),
        ("none", 0, None, 0, "x", 0),
    ]
    connection = sqlite3.connect(taxed.db)
    connection.execute("UPDATE master_tax SET note = 'z' WHERE tax_class = 'none' AND scope = 'all'")
    connection.commit()
    connection.close()
    assert taxed.run("verify").exit_code == 2


def test_the_digest_before_the_first_event_of_the_longer_rows_is_theirs(taxed: Desk) -> None:
    taxed.declare(WIDER_TAX)
    taxed.json("publish tax tax_class=half label=Reduced")
    with Master.open(taxed.db, registry_of(WIDER_TAX)) as master:
        before = master.digest_at(Stream.parse("tax/all", registry_of(WIDER_TAX)), 4)
    assert before == to_hex(total([(1, "full", 1900, None, 0), (2, "half", 700, None, 0)]))


def test_no_live_batch_holds_events_from_before_the_columns_were_gained(taxed: Desk) -> None:
    """Their rows are shorter; they only travel within segments and heads, which are made of the master's rows."""
    taxed.declare(WIDER_TAX)
    taxed.json("publish tax tax_class=half label=Reduced")
    taxed.json("publish tax tax_class=half reduced=yes")
    stream = Stream.parse("tax/all", registry_of(WIDER_TAX))
    with Master.open(taxed.db, registry_of(WIDER_TAX)) as master:
        row = master.stream(stream)
        assert row is not None
        messages = StreamMessages.load(
            stream, "t", master, Publication.open(taxed.directory / "p.db"), row.epoch, Sizes()
        )
        message, until = messages.next_live(row) or (None, 0)
        assert message is not None
        live = decode_live("t", message, registry_of(WIDER_TAX))
        while not messages.segments.seal(1, 1):
            pass
        made = messages.head(2)
    assert (live.first, live.last, until) == (5, 6, 6)
    assert live.prev_digest == to_hex(total([(1, "full", 1900, None, 0), (2, "half", 700, None, 0)]))
    assert list(live.rows) == [(5, "half", 700, "Reduced", 0), (6, "half", 700, "Reduced", 1)]
    assert made is not None
    head = decode_head("t", made[0], registry_of(WIDER_TAX))
    assert list(head.tail_rows) == [(1, "full", 1900, None, 0), (6, "half", 700, "Reduced", 1)]


@pytest.mark.parametrize(
    ("old", "new", "says", "fields"),
    [
        (', kind = "integer", min = 0, max = 10000', "", "rate_bp is of kind text and was integer", "rate_bp=1"),
        ('"rate_bp"', '"rate"', "lacks column rate_bp: none can be removed or renamed", "rate=1"),
        ("values = [", 'values = [{ name = "label" }, ', "further ones go to the end", "rate_bp=1"),
        ("}]\nv", '}, { name = "country" }]\nv', "further ones go to the end", "country=DE rate_bp=1"),
        ("true }]", 'true }, { name = "label", required = true }]', "need a default for", "rate_bp=1 label=x"),
    ],
)
def test_any_other_change_of_columns_is_refused_and_the_rest_goes_on(
    taxed: Desk, old: str, new: str, says: str, fields: str
) -> None:
    before = taxed.asked("SELECT * FROM streams")
    assert old in TAX
    taxed.declare(TAX.replace(old, new))
    text = taxed.refused(f"publish tax tax_class=full {fields}")
    assert says in text
    assert "HQ_CONTEXTS" in text
    assert says in taxed.run("status").stderr
    assert TAX_ALL not in taxed.json("status")["streams"]
    assert taxed.asked("SELECT * FROM streams") == before
    assert taxed.json("publish product sku=1")["events"] == 1


def test_the_doctor_names_a_context_that_is_declared_otherwise(taxed: Desk) -> None:
    """The others are looked at all the same."""
    taxed.declare(None)
    result = taxed.run("doctor --json")
    found = [check for check in json.loads(result.stdout)["checks"] if check["check"] == "contexts"]
    assert [check["sentence"] for check in found] == ["tax: the master has it, and it is not declared here."]


def test_a_context_without_any_event_may_still_be_declared_otherwise(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.declare(TAX.replace("rate_bp", "rat_bp"))
    desk.run("init")
    desk.declare(TAX)
    assert desk.json("publish tax tax_class=full rate_bp=1900")["head_seq"] == 1
    assert desk.run("verify").exit_code == 0


def test_mistakes_of_the_file_are_told_with_its_name(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.declare('[[context]]\nname = "price"\nkeys = [{ name = "a" }]\nvalues = [{ name = "seq" }]\n')
    text = desk.refused("status")
    assert f"HQ_CONTEXTS: {desk.file}: context price: is built in" in text
    assert "column seq: is reserved" in text
    desk.declare(EXAMPLE.read_text().replace('"EUR"', '"EUX"'))
    assert "promotion, column minimum_minor: no currency EUX" in desk.refused("status")
    desk.file = tmp_path / "none.toml"
    assert "none.toml: No such file" in desk.refused("status")
