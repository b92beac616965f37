"""The `hq` command as it is typed: what it prints, what it refuses, how it exits."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hq.cli import main
from hq.master.store import Master
from hq.publish.publication import BrokerPosition, Publication, publication_path
from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream


class Desk:
    """Someone at a terminal in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.db = directory / "hq.db"

    def run(self, line: str, stdin: str | None = None) -> Result:
        environ = {"HQ_DB": str(self.db), "HQ_CONFIG": "", "HQ_BROKER": "mqtt://localhost:1"}
        return CliRunner().invoke(main, line.split(" "), input=stdin, env=environ, catch_exceptions=False)

    def json(self, line: str, stdin: str | None = None) -> Any:
        result = self.run(line + " --json", stdin)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def refused(self, line: str, stdin: str | None = None) -> str:
        result = self.run(line, stdin)
        assert result.exit_code == 1, result.output
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        return result.stderr

    def feed(self, content: str, name: str = "f.csv") -> str:
        (self.directory / name).write_text(content)
        return str(self.directory / name)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    assert desk.run("init").exit_code == 0
    return desk


def test_init_twice_keeps_the_master(desk: Desk) -> None:
    desk.run("publish product sku=1 name=A")
    assert desk.json("init") == {"db": str(desk.db), "created": False, "streams": ["price/all", "product/all"]}
    assert desk.json("status")["streams"]["product/all"]["head_seq"] == 1


def test_without_a_master_every_command_says_what_to_type(tmp_path: Path) -> None:
    for line in ("status", "log", "verify", "publish product sku=1", f"import product {__file__}"):
        assert "hint: run: hq init" in Desk(tmp_path).refused(line)


def test_publish_changes_only_the_fields_it_names(desk: Desk) -> None:
    desk.run("publish product sku=4011 name=Bananas brand=X")
    outcome = {"stream": "product/all", "events": 1, "first_seq": 2, "head_seq": 2, "published": None}
    assert desk.json("publish product sku=4011 brand=") == outcome
    outcome |= {"events": 0, "first_seq": None}
    assert desk.json("publish product sku=4011 name=Bananas") == outcome
    result = desk.run("log --json --limit 1")
    assert {k: v for k, v in json.loads(result.stdout).items() if k != "time"} == {
        "stream": "product/all",
        "seq": 2,
        "op": "upsert",
        "key": ["4011"],
        "changed": ["brand"],
    }


def test_delete_is_an_event_once(desk: Desk) -> None:
    desk.run("publish price sku=1 amount=1.99 currency=EUR")
    assert "no place in a delete" in desk.refused("publish price sku=1 amount=1 --delete")
    assert [desk.json("publish price sku=1 --delete")["events"] for _ in range(3)] == [1, 0, 0]
    assert desk.json("status")["streams"]["price/all"]["rows"] == 0


def test_lines_on_stdin_are_one_change_set_or_none(desk: Desk) -> None:
    lines = '{"sku":"1","name":"A"}\n{"sku":"2"}\n{"sku":"1","brand":"B"}\n'
    assert desk.json("publish product --stdin", lines)["events"] == 2
    with Master.open(desk.db, BUILT_IN) as master:
        assert [e.ends for e in master.events_after(Stream.parse("product/all", BUILT_IN), 0, 9)] == [False, True]
    text = desk.refused("publish product --stdin", '{"sku":"3"}\n{"sku":"4","attributes":"x"}\n')
    assert "<stdin>, line 2, field attributes" in text
    assert desk.json("status")["streams"]["product/all"]["head_seq"] == 2


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("publish price sku=1 amount=-1 currency=EUR", "amount: '-1' is negative"),
        ("publish price sku=1 amount=1,5 currency=EUR", "decimal point"),
        ("publish price sku=1 amount=1 currency=EUX", "currency: 'EUX'"),
        ("publish price sku=1 amount=1", "currency: is missing"),
        ("publish price amount=1 currency=EUR", "sku: is missing"),
        ("publish product sku=1 nmae=A", "nmae: is no field of product"),
        ("publish product sku=1 sku=2", "sku: is named twice"),
        ("publish product sku=1 --scope Zone", "scope: "),
        ("log --stream nonsense", "not a declared context/scope"),
        ("log --since yesterday", "--since: must be a seq or a time"),
        ("--broker http://x status", "--broker: "),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(desk: Desk, line: str, says: str) -> None:
    text = desk.refused(line)
    assert says in text
    assert len(text.splitlines()) <= 2
    assert desk.json("status")["streams"].keys() == {"price/all", "product/all"}


@pytest.mark.parametrize(
    "line", ["publish product", "publish product x", "publish fruit sku=1", "import product none.csv", "nonsense"]
)
def test_wrong_usage_exits_with_2(desk: Desk, line: str) -> None:
    assert desk.run(line).exit_code == 2


def test_the_same_feed_twice_emits_nothing_and_seven_rows_seven(desk: Desk) -> None:
    rows = [f"{i},{i}.99,EUR" for i in range(100)]
    feed = desk.feed("\n".join(["sku,amount,currency", *rows]))
    assert desk.json(f"import price {feed}")["events"] == 100
    assert desk.json(f"import price {feed}")["events"] == 0
    changed = [f"{i},{i}.49,EUR" for i in range(7)] + rows[7:]
    facts = desk.json(f"import price {desk.feed(chr(10).join(['sku,amount,currency', *changed]))}")
    facts.pop("seconds")
    assert facts == {
        "stream": "price/all",
        "dry_run": False,
        "rows": 100,
        "events": 7,
        "new": 0,
        "changed": 7,
        "deleted": 0,
        "unchanged": 93,
        "expired": 0,
        "first_seq": 101,
        "head_seq": 107,
    }
    assert desk.run("verify").exit_code == 0


def test_a_bad_row_imports_nothing(desk: Desk) -> None:
    text = desk.refused(
        f"import price {desk.feed('sku,amount,currency' + chr(10) + '1,1.00,EUR' + chr(10) + '2,-1,EUR')}"
    )
    assert text == "error: f.csv, line 3, field amount: '-1' is negative\n"
    assert desk.json("status")["streams"]["price/all"]["head_seq"] == 0


def test_a_full_feed_deletes_what_it_lacks_within_its_guards(desk: Desk) -> None:
    desk.run(f"import product {desk.feed('sku' + chr(10) + chr(10).join('abcde'))}")
    feed = desk.feed("sku\na\nf\n")
    assert desk.json(f"import product {feed}")["deleted"] == 0
    assert "would delete 4 entities" in desk.refused(f"import product {feed} --full --max-deletes 3")
    assert "would make 4 events" in desk.refused(f"import product {feed} --full --max-changes 3")
    dry = desk.json(f"import product {feed} --full --dry-run")
    assert (dry["deleted"], dry["events"], dry["head_seq"]) == (4, 4, None)
    assert desk.json(f"import product {feed} --full --max-deletes 4")["deleted"] == 4
    assert desk.json("status")["streams"]["product/all"]["rows"] == 2


def test_an_empty_full_feed_needs_a_second_thought(desk: Desk) -> None:
    desk.run("publish product sku=1")
    empty = desk.feed("sku\n")
    assert "would delete all" in desk.refused(f"import product {empty} --full")
    assert desk.json(f"import product {empty}")["events"] == 0
    assert desk.json(f"import product {empty} --full --allow-empty")["deleted"] == 1


def test_columns_are_mapped(desk: Desk) -> None:
    feed = desk.feed("Artikel;Preis;currency\n1;1.99;EUR\n")
    assert "--map Artikel=FIELD" in desk.refused(f"import price {feed}")
    assert desk.json(f"import price {feed} --map Artikel=sku --map Preis=amount --scope zone-west")["new"] == 1
    assert desk.json("status")["streams"]["price/zone-west"]["rows"] == 1


def test_wait_tells_committed_from_published(desk: Desk) -> None:
    text = desk.refused("publish product sku=1 --wait --timeout 0")
    assert "product/all 1 is committed, but not published" in text
    assert "hint: start it: hq run" in text
    with Master.open(desk.db, BUILT_IN) as master:
        row = master.stream(Stream.parse("product/all", BUILT_IN))
    assert row is not None
    publication = Publication.open(publication_path(desk.db))
    publication.set_position(row.stream, BrokerPosition("000000000000-00000000", 9, ""))
    assert "not published" in desk.refused("publish product sku=1 --wait --timeout 0")
    publication.set_position(row.stream, BrokerPosition(row.epoch, 1, ""))
    assert desk.json("publish product sku=1 --wait --timeout 0")["published"] is True
    assert desk.json("status")["streams"]["product/all"]["published"] == 1


def test_status_has_its_documented_keys(desk: Desk) -> None:
    document = desk.json("status")
    assert document.keys() == {"streams", "broker", "foreign", "running", "pid", "database"}
    assert document["streams"]["price/all"].keys() == {
        "epoch",
        "head_seq",
        "published",
        "rows",
        "digest",
        "segments",
        "retained_bytes",
    }
    assert (document["running"], document["broker"]["connected"]) == (False, False)


def test_verify_exits_with_2_when_something_was_altered(desk: Desk) -> None:
    desk.run("publish product sku=1 name=A")
    with Master.open(desk.db, BUILT_IN) as master:
        master.query("UPDATE master_product SET name = 'B'")
    result = desk.run("verify --json")
    assert (result.exit_code, json.loads(result.stdout)["ok"]) == (2, False)
    assert "DIFFERS" in desk.run("verify").stdout


def test_options_may_stand_before_or_after_the_command(desk: Desk, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    assert desk.run(f"--db {other} init").exit_code == 0
    assert desk.json(f"status --db {other}")["database"]["path"] == str(other)


def test_every_command_and_option_has_help() -> None:
    for name, command in main.commands.items():
        assert command.help, name
        for option in command.params:
            record = option.to_info_dict()
            assert record["param_type_name"] == "argument" or record.get("help") or record["name"] == "help", (
                name,
                option.name,
            )


def priced(*lines: tuple[str, str, str]) -> str:
    """A price feed of (sku, kind, amount)."""
    return "\n".join(["sku,kind,amount,currency", *(f"{sku},{kind},{amount},EUR" for sku, kind, amount in lines)])


REGULAR = [(str(i), "regular", "2.00") for i in range(100)]
PROMOTIONS = [(str(i), "promotion", "1.50") for i in range(30)]


@pytest.fixture
def shop(desk: Desk) -> Desk:
    """A desk with 100 regular prices and 30 promotions."""
    assert desk.json(f"import price {desk.feed(priced(*REGULAR, *PROMOTIONS))}")["events"] == 130
    return desk


def head_and_rows(desk: Desk) -> tuple[int, int]:
    facts = desk.json("status")["streams"]["price/all"]
    return facts["head_seq"], facts["rows"]


NDJSON = '{"sku":"1","amount":"2.00","currency":"EUR"}\n{"sku":"2","amount":"2.10","currency":"EUR"}\n'
"""The same as the next one, read row by row."""
TWO = "sku,amount,currency\n1,2.00,EUR\n2,2.10,EUR\n"


@pytest.mark.parametrize(("content", "name"), [(TWO, "two.csv"), (NDJSON, "two.ndjson")])
def test_two_rows_that_say_they_are_all_are_refused_with_what_would_go(shop: Desk, content: str, name: str) -> None:
    """Such a feed once deleted 49,688 prices."""
    feed = shop.feed(content, name)
    text = shop.refused(f"import price {feed} --full")
    assert text.splitlines()[:4] == [
        f"error: {name} would delete 128 of the 130 rows of price/all, more than 10 %",
        "deleted:",
        "  0/promotion  1.50 EUR",
        "  0/regular  2.00 EUR",
    ]
    assert text.splitlines()[-2] == "  … and 108 more"
    for word in ("--dry-run", "--force", "--where kind=regular", "nothing was imported"):
        assert word in text.splitlines()[-1]
    assert head_and_rows(shop) == (130, 130)
    assert shop.json(f"import price {feed} --full --force")["deleted"] == 128
    assert head_and_rows(shop) == (130 + 129, 2)


def test_a_refusal_tells_programs_what_would_go(shop: Desk) -> None:
    result = shop.run(f"import price {shop.feed(TWO)} --full --json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["refused"].keys() == {"guard", "problem", "hint"}
    assert (document["refused"]["guard"], document["held"], document["deleted"]) == ("share", 130, 128)
    assert (document["dry_run"], document["first_seq"], document["head_seq"]) == (False, None, None)
    assert {kind: len(few) for kind, few in document["samples"].items()} == {"new": 0, "changed": 1, "deleted": 20}
    assert document["samples"]["deleted"][0]["key"] == ["0", "promotion"]
    assert result.stderr.startswith(f"error: {document['refused']['problem']}\nhint: ")


def test_a_dry_run_shows_what_a_guard_would_stop(shop: Desk) -> None:
    """It was itself stopped, and its hint was: see what with --dry-run."""
    feed = shop.feed(TWO + "new,3.00,EUR\n")
    result = shop.run(f"import price {feed} --full --dry-run --max-changes 5")
    assert (result.exit_code, result.stderr) == (0, "")
    text = result.stdout.splitlines()
    assert max(map(len, text)) <= 80
    assert [line for line in text if line.endswith(":")] == ["new:", "changed:", "deleted:"]
    for line in ("  new/regular  3.00 EUR", "  2/regular  2.00 EUR -> 2.10 EUR", "  … and 108 more"):
        assert line in text
    assert "would be refused: f.csv would make 130 events; --max-changes is 5" in " ".join(result.stdout.split())
    document = shop.json(f"import price {feed} --full --dry-run")
    assert (document["new"], document["changed"], document["deleted"]) == (1, 1, 128)
    assert document["refused"]["guard"] == "share"
    assert document["samples"]["changed"][0]["key"] == ["2", "regular"]
    assert shop.json(f"import price {feed} --dry-run")["refused"] is None
    assert head_and_rows(shop) == (130, 130)


def test_a_feed_of_regular_prices_does_not_delete_the_promotions(shop: Desk) -> None:
    """It once deleted them all; 30 of 1,000 are no great share, either."""
    regular = [(str(i), "regular", "2.00") for i in range(970)]
    shop.run(f"import price {shop.feed(priced(*regular))}")
    before = head_and_rows(shop)
    text = shop.refused(f"import price {shop.feed(priced(*regular))} --full")
    assert "would delete 30 of the 1,000 rows of price/all, among them all with kind=promotion" in text
    assert "--where kind=regular" in text
    changed = [("0", "regular", "2.50"), *regular[2:]]
    facts = shop.json(f"import price {shop.feed(priced(*changed))} --full --where kind=regular")
    assert (facts["deleted"], facts["changed"], facts["unchanged"]) == (1, 1, 968)
    assert head_and_rows(shop) == (before[0] + 2, 999)


def test_the_guard_of_a_part_looks_at_the_part(shop: Desk) -> None:
    """15 of 130 rows are not half, of 30 promotions they are more."""
    feed = shop.feed(priced(*PROMOTIONS[:14]))
    text = shop.refused(f"import price {feed} --full --where kind=promotion")
    assert "would delete 16 of the 30 rows of price/all with kind=promotion: it has 14, fewer than half" in text
    assert head_and_rows(shop) == (130, 130)
    assert shop.json(f"import price {feed} --full --where kind=promotion --force")["deleted"] == 16
    assert shop.json(f"import price {shop.feed(priced(*PROMOTIONS[:9]))} --full --where kind=promotion")["deleted"] == 5


@pytest.mark.parametrize("name", ["f.csv", "f.ndjson"])
def test_a_row_that_the_feed_does_not_speak_for_is_refused_with_its_line(shop: Desk, name: str) -> None:
    content = priced(*REGULAR[:3], ("x", "promotion", "1"), ("y", "clearance", "1"))
    if name == "f.ndjson":
        names, *rows = (line.split(",") for line in content.splitlines())
        content = "\n" + "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows)
    for full in ("", " --full"):
        text = shop.refused(f"import price {shop.feed(content, name)} --where kind=regular{full}")
        assert text == (
            f"error: {name}, line 5, field kind: 'promotion' lies outside of what the feed speaks for: kind=regular\n"
            "hint: leave the row out, or add --where kind=promotion\n"
        )
    assert head_and_rows(shop) == (130, 130)


def test_an_empty_part_is_refused_and_one_that_is_empty_already_is_not(shop: Desk) -> None:
    empty = shop.feed("sku,kind,amount,currency\n")
    text = shop.refused(f"import price {empty} --full --where sku=3 --where kind=promotion")
    assert "has no rows; --full would delete all of price/all with sku=3 kind=promotion: 1 row\n" in text
    assert shop.json(f"import price {empty} --full --where kind=clearance")["events"] == 0
    assert shop.json(f"import price {empty} --full --where kind=promotion --where sku=3 --force")["deleted"] == 1
    assert head_and_rows(shop) == (131, 129)


def test_force_lifts_no_guard_that_the_command_names(shop: Desk) -> None:
    feed = shop.feed(TWO)
    assert "--max-deletes is 9" in shop.refused(f"import price {feed} --full --force --max-deletes 9")
    assert "more than 10 %" in shop.refused(f"import price {feed} --full --max-deletes 999")


def test_a_feed_that_is_not_full_deletes_nothing(shop: Desk) -> None:
    for where in ("", " --where kind=regular"):
        facts = shop.json(f"import price {shop.feed(TWO)}{where} --force --allow-empty")
        assert facts["deleted"] == 0
    assert head_and_rows(shop) == (131, 130)
