"""Declarations of contexts: what a file may say, every mistake at once, and how columns may change over time."""

from __future__ import annotations

import sqlite3

import msgspec
import pytest

from storelink.contract.contexts import (
    BUILT_IN,
    Column,
    Context,
    Differs,
    Gained,
    Same,
    columns_differ,
    compare,
    names_of,
    record_of,
)
from storelink.contract.declared import RESERVED_TABLES, SQL_WORDS, parse
from storelink.contract.errors import ContractViolation
from storelink.contract.messages import Live, Message, decode_live, encode_live
from storelink.contract.rows import Held, decode_rows, read_rows
from storelink.contract.status import Status, StreamStatus, decode_status, encode_status
from storelink.contract.streams import Stream
from storenode.replica.writer import Replica
from tests.registry import EXAMPLE, TAX, WIDER_TAX, registry_of

ONE = '[[context]]\nname = "tax"\nkeys = [{ name = "code" }]\nvalues = [{ name = "rate"%s }]\n%s'


def declared(column: str = "", context: str = "") -> Context:
    (found,) = parse(ONE % (column, context))
    return found


def mistakes(text: str) -> list[str]:
    with pytest.raises(ContractViolation) as caught:
        parse(text)
    assert caught.value.reason == "bad_declaration"
    return caught.value.detail.split("; ")


def test_the_example_says_what_it_says() -> None:
    tax, promotion = parse(EXAMPLE.read_text())
    assert (tax.table, tax.columns) == ("taxes", ("seq", "tax_class", "country", "rate_bp", "valid_from"))
    assert tax.values[0] == Column("rate_bp", "integer", required=True, at_least=0, at_most=10_000)
    assert tax.keys[1] == Column("country", chars_max=2, required=True, default="DE")
    kinds = ["text", "text", "choice", "date", "date", "amount", "boolean", "json"]
    assert [column.kind for column in promotion.values] == kinds
    assert promotion.search == ("title", "slogan")
    assert promotion.values[6].default == 0


def test_what_is_left_out_has_its_usual_value() -> None:
    assert declared().table == "tax"
    assert declared().values == (Column("rate"),)
    assert declared(', choices = ["a", "b"]').values[0].kind == "choice"
    assert parse("") == ()


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (', kind = "schedule"', "kind 'schedule' must be one of text, choice, integer"),
        (', kind = "float"', "kind 'float'"),
        (', kind = ["text"]', "kind ['text']"),
        (', kind = "choice"', "choices must list"),
        (', choices = ["a", "a"]', "choices must list"),
        (', kind = "amount"', "needs currency"),
        (', kind = "amount", currency = "euro"', "needs currency"),
        (', currency = "EUR"', "currency is only for kind amount"),
        (", min = 1", "min is only for kind integer"),
        (', kind = "integer", max_chars = 1', "max_chars is only for kind text or json"),
        (', kind = "integer", min = 2, max = 1', "min 2 is above max 1"),
        (', kind = "integer", max = 9223372036854775808', "max must be a whole number"),
        (', kind = "integer", max = true', "max must be a whole number"),
        (", max_chars = 0", "max_chars must be a whole number from 1 to 4000"),
        (", max_chars = 4001", "from 1 to 4000"),
        (', required = "yes"', "required must be true or false"),
        (", default = 1", "default 1 must be a text"),
        (', max_chars = 2, default = "abc"', "default 'abc' must be a text of 1 to 2 characters"),
        (', kind = "integer", default = "1"', "must be a whole number"),
        (', kind = "integer", default = 1.0', "must be a whole number"),
        (', kind = "integer", max = 3, default = 4', "default 4 is out of bounds"),
        (', kind = "boolean", default = 2', "default 2 is out of bounds"),
        (', choices = ["a"], default = "b"', "default 'b' is none of the choices"),
        (', kind = "date", default = "2026-02-30"', "is no date"),
        (', kind = "json", default = "{}"', "cannot be given for kind json"),
        (", requird = true", "unknown 'requird', did you mean 'required'?"),
    ],
)
def test_a_column_that_makes_no_sense_is_refused(column: str, says: str) -> None:
    (only,) = mistakes(ONE % (column, ""))
    assert only.startswith("context tax, column rate")
    assert says in only


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[context.tax]\n", "write each context as [[context]]"),
        ("[[contexts]]\n", "the file: unknown 'contexts', did you mean 'context'?"),
        ("context = 1", "write each context as [[context]]"),
        ("[[context]", "is not TOML"),
        (ONE % ("", "") * 2, "context tax is declared twice"),
        (ONE.replace('"code"', '"rate"') % ("", ""), "column rate is declared twice"),
        (ONE.replace('"rate"', '"scope"') % ("", ""), "is reserved"),
        (ONE.replace('"rate"', '"order"') % ("", ""), "order is a word of SQL"),
        (ONE.replace('"tax"', '"group"') % ("", ""), "group is a word of SQL"),
        (ONE.replace('"tax"', '"product"') % ("", ""), "goes into attributes"),
        (ONE.replace('"tax"', '"price"') % ("", ""), "price: is built in"),
        (ONE.replace('"tax"', '"Tax"') % ("", ""), "needs a name of 1 to 32"),
        (ONE.replace('"tax"', '"tax-rate"') % ("", ""), "needs a name of 1 to 32"),
        (ONE.replace('"tax"', '"t' + "x" * 32 + '"') % ("", ""), "needs a name of 1 to 32"),
        (ONE % ("", 'table = "products"'), "table products is a name of the replica's own"),
        (ONE % ("", 'table = "x_search"'), "a name of the replica's own"),
        (ONE % ("", 'search = ["nothing"]'), "search 'nothing' is no column"),
        (ONE % (', kind = "integer"', 'search = ["rate"]'), "search 'rate' is no column of kind text"),
        (ONE % ("", 'search = "rate"'), "search must list"),
        (ONE.replace('{ name = "code" }', '{ name = "code", kind = "integer" }') % ("", ""), "a key's kind"),
        (ONE.replace('{ name = "code" }', '{ name = "code", required = false }') % ("", ""), "true for a key"),
        (ONE.replace('{ name = "code" }', "") % ("", ""), "needs keys = "),
        ('[[context]]\nname = "tax"\n', "needs keys = "),
        (ONE.replace('"code" }', ", ".join(f'"k{n}" }}, {{ name = "j{n}" }}' for n in range(3))) % ("", ""), ""),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(text: str, says: str) -> None:
    assert any(says in mistake for mistake in mistakes(text))


def test_too_much_is_refused() -> None:
    many = ", ".join(f'{{ name = "c{n}" }}' for n in range(48))
    assert mistakes(ONE.replace('{ name = "rate"%s }', many) % "") == ["context tax: 49 columns, at most 48"]
    keys = ", ".join(f'{{ name = "k{n}" }}' for n in range(5))
    assert mistakes(ONE.replace('{ name = "code" }', keys) % ("", "")) == ["context tax: 5 keys, at most 4"]
    contexts = "".join(ONE.replace('"tax"', f'"tax{n}"') % ("", "") for n in range(17))
    assert mistakes(contexts) == ["17 contexts, at most 16"]


def test_all_mistakes_are_told_at_once() -> None:
    found = mistakes(ONE.replace('"code"', '"select"') % (', kind = "amount", min = 1', 'serach = ["x"]'))
    assert found == [
        "context tax: unknown 'serach', did you mean 'search'?",
        "context tax, column select: select is a word of SQL, which a till could not type as a name",
        "context tax, column rate: min is only for kind integer",
        "context tax, column rate: needs currency, an ISO 4217 code such as EUR",
    ]


KEYWORDS = (
    "abort action add after all alter always analyze and as asc attach autoincrement before begin between by cascade"
    " case cast check collate column commit conflict constraint create cross current current_date current_time"
    " current_timestamp database default deferrable deferred delete desc detach distinct do drop each else end escape"
    " except exclude exclusive exists explain fail filter first following for foreign from full generated glob group"
    " groups having if ignore immediate in index indexed initially inner insert instead intersect into is isnull join"
    " key last left like limit match materialized natural no not nothing notnull null nulls of offset on or order"
    " others outer over partition plan pragma preceding primary query raise range recursive references regexp reindex"
    " release rename replace restrict returning right rollback row rows savepoint select set table temp temporary then"
    " ties to transaction trigger unbounded union unique update using vacuum values view virtual when where window"
    " with without true false"
)
"""All of SQLite's."""


@pytest.mark.parametrize("word", sorted({*KEYWORDS.split()} - SQL_WORDS))
def test_every_word_of_sql_that_is_not_refused_can_be_typed_as_a_name(word: str) -> None:
    db = sqlite3.connect(":memory:")
    db.execute(f"CREATE TABLE {word} ({word} TEXT, scope TEXT, PRIMARY KEY ({word}, scope))")
    db.execute(
        f"INSERT INTO {word} ({word}, scope) VALUES ('v', 'all')"
        f" ON CONFLICT ({word}, scope) DO UPDATE SET {word} = excluded.{word}"
    )
    assert db.execute(f"SELECT t.{word} FROM {word} AS t WHERE {word} = 'v'").fetchall() == [("v",)]
    db.execute(f"DELETE FROM {word} WHERE {word} = 'v' AND scope = 'all'")
    db.execute(f"ALTER TABLE {word} ADD COLUMN further TEXT")
    db.execute(f"CREATE VIRTUAL TABLE {word}_search USING fts5(scope UNINDEXED, {word}, content='{word}')")


def test_every_table_of_the_replica_is_reserved(tmp_path: object) -> None:
    replica = Replica.open(f"{tmp_path}/replica.db", ("all",), BUILT_IN)  # type: ignore[arg-type]
    names = replica.connection.execute(
        "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite%'"
    ).fetchall()
    replica.connection.close()
    for (name,) in names:
        assert any("of the replica's own" in m for m in mistakes(ONE % ("", f'table = "{name}"'))), name
    assert len(names) > len(RESERVED_TABLES) // 2


def test_the_registry_takes_a_declaration_once_and_no_other_of_its_name() -> None:
    known = BUILT_IN.with_declared(parse(TAX)).with_declared(parse(TAX))
    assert list(known) == ["product", "price", "tax"]
    assert known.declared == parse(TAX)
    with pytest.raises(ContractViolation, match="tax is declared otherwise already"):
        known.with_declared(parse(WIDER_TAX))
    with pytest.raises(ContractViolation, match="price is declared otherwise"):
        known.with_declared([Context("price", "t", (Column("a"),), (Column("b"),))])
    assert list(known) == ["product", "price", "tax"]
    assert list(BUILT_IN) == ["product", "price"]


def test_columns_may_be_gained_at_the_end_and_nothing_else() -> None:
    (tax,), (wider,) = parse(TAX), parse(WIDER_TAX)
    record = record_of(tax)
    assert names_of(record) == ("tax_class", "rate_bp")
    assert compare(record, tax) == Same()
    gained = compare(record, wider)
    assert gained == Gained(wider.values[1:])
    assert isinstance(gained, Gained)
    assert gained.fill == (None, 0)
    assert compare(record_of(wider), tax) == Differs(
        "the declaration lacks columns label, reduced: none can be removed or renamed"
    )
    (bounds,) = parse(TAX.replace("10000", "20000"))
    assert compare(record, bounds) == Same(), "rules may change"
    (dollars, euros) = (declared(f', kind = "amount", currency = "{c}"') for c in ("USD", "EUR"))
    assert compare(record_of(dollars), euros) == Differs(
        "column rate is of kind amount:EUR and was amount:USD: no kind can be changed"
    )


def test_other_columns_are_told_apart() -> None:
    (tax,) = parse(TAX)
    assert columns_differ(tax, [*tax.columns, "x"]) == "HQ's tax has column x that the declaration here lacks"
    assert columns_differ(tax, ["seq", "tax_class"]) == "HQ's tax lacks column rate_bp that the declaration here has"
    assert columns_differ(tax, tax.columns[::-1]).endswith("in another order than declared here")
    hostile = columns_differ(tax, [*tax.columns, "a\nb" + "x" * 80, *map(str, range(99))])
    assert len(hostile) < 200
    assert "\n" not in hostile


CHAIN = registry_of(EXAMPLE.read_text())
PROMOTION = CHAIN["promotion"]


def test_hq_reads_the_status_of_a_store_that_follows_what_hq_does_not_declare() -> None:
    stream = StreamStatus("live", "000000000001-00000000", 7, "1" * 32)
    message = encode_status("t", Status("s", "live", 5, {"tax/all": stream}))
    assert decode_status("t", message).streams == {"tax/all": stream}
    bad = Message(message.topic, message.payload.replace(b"tax/all", b"T x/all"), True, message.content_type)
    with pytest.raises(ContractViolation, match="bad_stream"):
        decode_status("t", bad)


GOOD: list[str | int | None] = [1, "S1", "Summer", None, "everyone", "2026-06-01", None, 2000, 1, '{"a":1}']


def as_raw(*rows: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(rows))


def test_rows_of_every_kind_travel() -> None:
    row = tuple(GOOD)
    live = Live(
        Stream(PROMOTION, "all"), "000000000001-00000000", 1, 1, "0" * 32, "1" * 32, True, 5, [row], [], [["title"]]
    )
    assert decode_live("t", encode_live("t", live), CHAIN).rows == [row]


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (2, None, "title"),
        (2, "", "title"),
        (2, "x" * 201, "title"),
        (4, "staff", "audience"),
        (5, "2026-6-1", "starts_on"),
        (5, "2026-02-30", "starts_on"),
        (5, "20260601", "starts_on"),
        (7, -1, "minimum_minor"),
        (7, "20", "minimum_minor"),
        (8, 2, "stackable"),
        (9, "[]", "rules"),
    ],
)
def test_a_row_that_breaks_a_rule_is_held_alone(at: int, value: object, reason: str) -> None:
    bad: list[object] = [2, "S2", *GOOD[2:]]
    bad[at] = value
    found = read_rows(PROMOTION, as_raw(GOOD, bad), as_raw())
    assert found.rows == [tuple(GOOD)]
    (held,) = found.held
    assert isinstance(held, Held)
    assert (held.seq, held.key) == (2, ("S2",))
    assert held.reason.startswith(reason)


@pytest.mark.parametrize("value", [1.0, True, 2**63, [1], {}])
def test_what_no_row_can_hold_spoils_the_message(value: object) -> None:
    bad: list[object] = [2, "S2", *GOOD[2:]]
    bad[7] = value
    with pytest.raises(ContractViolation):
        decode_rows(PROMOTION, as_raw(GOOD, bad), as_raw())
    with pytest.raises(ContractViolation):
        read_rows(PROMOTION, as_raw(GOOD, bad), as_raw())
