"""Backups that somebody has written things into: `storenode restore` and `hq restore` refuse them, by name.

A trigger in a restored file ran in the daemon's transactions: a price of 0.01 in all stores, a daemon busy for ever.
Each file is crafted from a real backup, and given to the real command.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from hq.master import schema as master
from storelink.contract.contexts import PRICE, PRODUCT, Row
from storelink.contract.declared import parse
from storelink.contract.rows import to_hex, total
from storelink.contract.streams import Stream
from storenode.outbox.override_copy import OverrideCopy
from storenode.outbox.overrides import put
from storenode.outbox.store import Outbox
from storenode.replica import schema
from storenode.replica.writer import Replica
from testbed import commands
from tests.registry import EXAMPLE, TAX, WIDER_TAX, registry_of

PRICES: list[Row] = [(n, str(n), "regular", "EUR", f"[[0,null,{n}00]]") for n in range(1, 50)]
PRICE_ALL = Stream(PRICE, "all")
SEARCHED = "\n[[context]]" + EXAMPLE.read_text().rpartition("[[context]]")[2]
FOREVER = "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n)"


class Site:
    """A directory with a store or HQ in it, and a backup of that beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.live, self.backup = directory / "live", directory / "backup.db"

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        contexts = str(self.directory / "contexts.toml")
        return commands.run(
            program,
            words,
            {
                "STORENODE_DB": str(self.live / "replica.db"),
                "STORENODE_STORE_ID": "s",
                "STORENODE_CONTEXTS": contexts,
                "HQ_DB": str(self.live / "hq.db"),
                "HQ_CONTEXTS": contexts,
            },
        )

    def restored(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(program, "restore", str(self.backup), *words)

    def content(self) -> dict[str, bytes]:
        """What is in the directory; a lock beside a database is nothing, nor is the index of its log."""
        files = [p for p in self.live.iterdir() if not p.name.endswith((".lock", "-shm"))]
        return {p.name: p.read_bytes() for p in files if p.stat().st_size}

    def craft(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.backup, isolation_level=None)) as db:
            for statement in statements:
                db.execute(statement)


def put_rows(replica: Replica, stream: Stream, rows: Sequence[Row]) -> None:
    replica.apply(
        stream,
        epoch="000000000001-00000000",
        position=len(rows),
        digest=to_hex(total(rows)),
        head_seq=len(rows),
        batches=[(rows, [])],
        replace=True,
        wall_ms=0,
    )


def made_store(directory: Path) -> Site:
    """A replica with contexts of every kind: declared, with gained columns, with words that are searched."""
    site = Site(directory)
    site.live.mkdir()
    db, now_ms = site.live / "replica.db", time.time_ns() // 1_000_000
    for text in (TAX, WIDER_TAX + SEARCHED):
        known = registry_of(text)
        replica = Replica.open(db, ("all",), known)
        try:
            put_rows(replica, PRICE_ALL, PRICES)
            put_rows(replica, Stream(PRODUCT, "all"), [])
            put_rows(
                replica,
                Stream(known["tax"], "all"),
                [(1, "full", 1900)] if text == TAX else [(1, "full", 1900, None, None)],
            )
            with Outbox(site.live / "outbox.db") as outbox:
                if text == TAX:
                    put(outbox, "7", 77, "EUR", now_ms // 1000 + 90_000, "dented", now_ms)
                OverrideCopy(outbox.path, replica, "s").step(0, woken=True)
            if text != TAX:
                put_rows(replica, Stream(known["promotion"], "all"), [])
            replica.heartbeat(
                store_id="s", pid=None, connected=False, started_at_ms=now_ms, counters={}, wall_ms=now_ms
            )
        finally:
            replica.connection.close()
    (directory / "contexts.toml").write_text(WIDER_TAX + SEARCHED)
    made = json.loads(site.run("storenode", "backup", str(directory / "made"), "--json").stdout)
    shutil.move(made["file"], site.backup)
    return site


def made_hq(directory: Path) -> Site:
    site = Site(directory)
    site.live.mkdir()
    contexts = directory / "contexts.toml"
    contexts.write_text(TAX)
    for line in (
        "init",
        "publish price sku=1 amount=1.00 currency=EUR",
        "publish price sku=2 amount=2.00 currency=EUR",
        "publish tax tax_class=full rate_bp=1900",
    ):
        assert site.run("hq", *line.split()).returncode == 0
    contexts.write_text(WIDER_TAX + SEARCHED)
    assert site.run("hq", "publish", "tax", "tax_class=half", "rate_bp=700").returncode == 0
    done = site.run("hq", "backup", str(site.backup))
    assert done.returncode == 0, done.stderr
    return site


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {"storenode": tmp_path_factory.mktemp("store"), "hq": tmp_path_factory.mktemp("hq")}
    made_store(found["storenode"])
    made_hq(found["hq"])
    return found


@pytest.fixture
def sites(made: dict[str, Path], tmp_path: Path) -> Iterator[dict[str, Site]]:
    for program, directory in made.items():
        shutil.copytree(directory, tmp_path / program)
    yield {program: Site(tmp_path / program) for program in made}


def altered(kind: str, name: str, was: str, now: str) -> tuple[str, ...]:
    """Another declaration of what is there: SQLite itself would not let it be changed."""
    return (
        "PRAGMA writable_schema = ON",
        f"UPDATE sqlite_master SET sql = replace(sql, '{was}', '{now}') WHERE type = '{kind}' AND name = '{name}'",
        "PRAGMA writable_schema = OFF",
    )


UNRULY = to_hex(total([(1, "1", "regular", "EUR", "x"), *PRICES[1:]]))
CHEAP = "replace(schedule, ',77]', ',1]')"
ROOT = "SELECT rootpage FROM sqlite_master WHERE name"
CURRENCY = '"currency" TEXT'
PROGRAMS = {"storenode": "prices", "hq": "master_price"}
# `{prices}`: the table of prices on either side. The name in front is the one that the error has.
BOTH: dict[str, tuple[str, tuple[str, ...]]] = {
    "a trigger with a price": (
        "trigger evil",
        ("CREATE TRIGGER evil AFTER UPDATE ON streams BEGIN UPDATE {prices} SET schedule = '[[0,null,1]]'; END",),
    ),
    "a trigger that is busy for ever": (
        "trigger evil",
        (f"CREATE TRIGGER evil AFTER UPDATE ON streams BEGIN SELECT {FOREVER}; END",),
    ),
    "a view": ("view offers", ("CREATE VIEW offers AS SELECT * FROM {prices}",)),
    "a table": ("table notes", ("CREATE TABLE notes (text)",)),
    "a virtual table": ("table evil_data", ("CREATE VIRTUAL TABLE evil USING fts5(text)",)),
    "a table like a shadow": ("table product_search_content", ("CREATE TABLE product_search_content (id, c0)",)),
    "statistics of the planner": ("table sqlite_stat1", ("ANALYZE",)),
    "an index": ("index mine", ("CREATE INDEX mine ON {prices} (currency)",)),
    "a partial index with an expression": (
        "mine",
        ("CREATE INDEX mine ON {prices} (json_extract(schedule, '$[0]')) WHERE abs(seq) > 0",),
    ),
    "an index that is gone": (
        "index sqlite_autoindex_{prices}_1",
        (
            "PRAGMA writable_schema = ON",
            "DELETE FROM sqlite_master WHERE name = 'sqlite_autoindex_{prices}_1'",
        ),
    ),
    "a generated column": (
        "table {prices}",
        ("ALTER TABLE {prices} ADD COLUMN evil INTEGER GENERATED ALWAYS AS (abs(seq)) VIRTUAL",),
    ),
    "a further column": ("table streams", ("ALTER TABLE streams ADD COLUMN more TEXT",)),
    "a renamed column": ("table {prices}", ("ALTER TABLE {prices} RENAME COLUMN currency TO money",)),
    "a CHECK": ("table {prices}", altered("table", "{prices}", CURRENCY, CURRENCY + " CHECK (abs(1))")),
    "a DEFAULT": ("table {prices}", altered("table", "{prices}", CURRENCY, CURRENCY + " DEFAULT (abs(1))")),
    "a collation": ("table {prices}", altered("table", "{prices}", CURRENCY, CURRENCY + " COLLATE NOCASE")),
    "a column that is no text": ("table {prices}", altered("table", "{prices}", CURRENCY, '"currency" REAL')),
    "a column of a declared context": ("table {taxes}", ("ALTER TABLE {taxes} ADD COLUMN more BLOB",)),
    "a record of a context that cannot be": (
        "table contexts",
        ("UPDATE contexts SET name = 'x; DROP TABLE streams' WHERE name = 'tax'",),
    ),
    "a declaration that is no SQL": ("{prices}", altered("table", "{prices}", "CREATE TABLE", "CREATE TABBLE")),
    "another version": ("9", ("PRAGMA user_version = 9",)),
    "another program's": ("is not a", ("PRAGMA application_id = 7",)),
    "a size of the cache": ("cache size", ("PRAGMA default_cache_size = 2000000",)),
    "another size of pages": ("page size", ("PRAGMA journal_mode = DELETE", "PRAGMA page_size = 8192", "VACUUM")),
    "a file that shrinks itself": (
        "largest root page",
        (
            "PRAGMA journal_mode = DELETE",
            "PRAGMA auto_vacuum = FULL",
            "VACUUM",
        ),
    ),
}
OWN: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "storenode": {
        "a number as text": ("table commits, column epoch", ("UPDATE commits SET epoch = X'00'",)),
        "a scope that nobody follows": (
            "'evil'",
            ("INSERT INTO prices SELECT 'evil', sku, kind, currency, '[[0,null,1]]', seq FROM prices WHERE seq < 9",),
        ),
        "a scope above all": ("'evil'", ("INSERT INTO scopes VALUES ('evil', 2000000)",)),
        "a view that shadows": (
            "view current_prices",
            (
                "DROP VIEW current_prices",
                "CREATE VIEW current_prices AS SELECT sku, 1 AS amount_minor FROM prices",
            ),
        ),
        "a view in a table's place": (
            "table read_models",
            (
                "DROP TABLE read_models",
                "CREATE VIEW read_models AS SELECT 1 AS name, 2 AS stream",
            ),
        ),
        "a word index of another kind": (
            "table product_search",
            altered("table", "product_search", "unicode61", "trigram"),
        ),
        "a trigger of ours that does more": (
            "trigger promotions_search_insert",
            altered("trigger", "promotions_search_insert", "BEGIN ", "BEGIN DELETE FROM prices; "),
        ),
        "a context that names a table of ours": (
            "table contexts",
            ("UPDATE contexts SET table_name = 'prices' WHERE name = 'tax'",),
        ),
        "columns that are statements": (
            "table contexts",
            ("""UPDATE contexts SET columns = '["(SELECT 1)"]' WHERE name = 'tax'""",),
        ),
        "a line of the store's own that no override made": (
            "8",
            ("INSERT INTO prices VALUES ('@s', '8', 'override', 'EUR', '[[0,null,1]]', 1)",),
        ),
        "a planted override": (
            "'8' 1 EUR",
            (
                "INSERT INTO overrides SELECT '8', 1, currency, starts_at, ends_at, until, '', 0, 9, 9 FROM overrides",
                f"INSERT INTO prices SELECT scope, '8', kind, currency, {CHEAP}, 9 FROM prices WHERE kind = 'override'",
            ),
        ),
        "a schedule of another row": (
            "not HQ's",
            ("UPDATE prices SET schedule = '[[0,null,1]]' WHERE sku = '1' AND kind = 'regular'",),
        ),
        "a row that HQ cannot have sent, with its digest": (
            "cannot have sent",
            (
                "UPDATE prices SET schedule = 'x' WHERE sku = '1' AND kind = 'regular'",
                f"UPDATE streams SET digest = '{UNRULY}' WHERE stream = 'price/all'",
            ),
        ),
        "a held version that is no row": (
            "no replica holds",
            ("INSERT INTO quarantine VALUES ('price/all', '5', 1, '[]', 'r', 0)",),
        ),
        "an index of words that is told how to rank": (
            "table promotions_search_config",
            ("INSERT INTO promotions_search(promotions_search, rank) VALUES ('rank', 'bm25(10.0)')",),
        ),
        "a stream without a name": ("table streams, column stream", ("INSERT INTO streams(stream) VALUES (NULL)",)),
        "a position below 0": ("below 0", ("UPDATE streams SET position = -5",)),
        "a time to come": ("later than this machine's clock", ("UPDATE clock SET known_ms = 1 << 45",)),
    },
    "hq": {
        "a number as text": ("table events, column changed", ("UPDATE events SET changed = X'00'",)),
        "a scope that nobody follows": (
            "evil",
            ("INSERT INTO master_price SELECT 'evil', sku, kind, currency, schedule, seq, deleted FROM master_price",),
        ),
        "events of no stream": (
            "evil/all",
            ("INSERT INTO events VALUES ('evil/all', 1, 0, 'upsert', '[]', '[]', 0, '[]', '', 1)",),
        ),
        "an event that is no row": ("no master holds", ("UPDATE events SET row = '{}'",)),
        "a key that is no JSON": ("no JSON", ("UPDATE events SET key = '{'",)),
        "a filling that is no row": ("no master holds", ("UPDATE reshapes SET fill = '5'",)),
        "an epoch that is none": ("epoch", ("UPDATE streams SET epoch = 'zz'",)),
        "two tables in the same pages": (
            "page",
            (
                "PRAGMA writable_schema = ON",
                f"UPDATE sqlite_master SET rootpage = ({ROOT} = 'contexts') WHERE name = 'reshapes'",
            ),
        ),
        "an index on other columns": ("index idx_reshapes", altered("index", "idx_reshapes", "(stream)", "(fill)")),
        "an amount of another row": (
            "does not add up",
            ("UPDATE master_price SET schedule = '[[0,null,1]]' WHERE sku = '1'",),
        ),
    },
}
CASES = [(p, what) for p in PROGRAMS for what in sorted({**BOTH, **OWN[p]})]
TAXES = {"storenode": "taxes", "hq": "master_tax"}


@pytest.mark.parametrize(("program", "what"), CASES, ids=lambda part: part.replace(" ", "-"))
def test_a_crafted_file_is_refused_by_name_and_changes_nothing(sites: dict[str, Site], program: str, what: str) -> None:
    site = sites[program]
    named, statements = {**BOTH, **OWN[program]}[what]
    names = {"{prices}": PROGRAMS[program], "{taxes}": TAXES[program]}
    for placeholder, name in names.items():
        named = named.replace(placeholder, name)
        statements = tuple(each.replace(placeholder, name) for each in statements)
    site.craft(*statements)
    before = site.content()
    done = site.restored(program)
    assert done.returncode == 1, done.stdout
    assert "error: " in done.stderr
    assert named in done.stderr
    assert "\nhint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert site.content() == before


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_backup_itself_is_restored(sites: dict[str, Site], program: str) -> None:
    """With declared contexts, columns that they gained, and words that are searched."""
    done = sites[program].restored(program)
    assert (done.returncode, done.stderr) == (0, "")
    assert sites[program].run(program, "verify").returncode == 0
    with closing(sqlite3.connect(sites[program].backup)) as db:
        contexts = db.execute("SELECT count(*) FROM contexts").fetchone()[0]
    assert contexts == len(parse(WIDER_TAX + SEARCHED)), "the control: there is something to compare"


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_backup_in_another_encoding_is_refused(sites: dict[str, Site], program: str, tmp_path: Path) -> None:
    """As a dump that was read into a new file: the same declarations, all texts in UTF-16."""
    site = sites[program]
    with closing(sqlite3.connect(tmp_path / "new.db", isolation_level=None)) as new:
        new.execute("PRAGMA encoding = 'UTF-16le'")
        new.execute("CREATE TABLE streams (x)")
        made_as = {"storenode": schema, "hq": master}[program]
        new.execute(f"PRAGMA application_id = {made_as.APPLICATION_ID}")
        new.execute(f"PRAGMA user_version = {made_as.VERSION}")
    shutil.move(tmp_path / "new.db", site.backup)
    done = site.restored(program)
    assert (done.returncode, "text encoding is 2, not 1" in done.stderr) == (1, True), done.stderr


def prices(db: Path) -> dict[str, int]:
    with closing(sqlite3.connect(f"{db.as_uri()}?mode=ro", uri=True)) as replica:
        return dict(replica.execute("SELECT sku, amount_minor FROM current_prices WHERE kind = 'override'"))


def test_what_the_outbox_says_of_own_prices_counts_and_not_the_backup(sites: dict[str, Site]) -> None:
    """One that was taken back since does not come back, and one that was set since is there."""
    site = sites["storenode"]
    assert site.run("storenode", "override", "7", "--withdraw").returncode == 0, "the control"
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 90_000))
    set_ = site.run("storenode", "override", "9", "0.55", "--until", until, "--reason", "dented")
    assert set_.returncode == 0, set_.stderr
    assert site.restored("storenode").returncode == 0
    assert prices(site.live / "replica.db") == {"9": 55}


@pytest.mark.parametrize(("word", "found"), [("set", {"7": 77}), ("drop", {})])
def test_own_prices_come_to_a_new_machine_when_the_operator_says_so(
    sites: dict[str, Site], word: str, found: dict[str, int]
) -> None:
    site = sites["storenode"]
    shutil.rmtree(site.live)
    site.live.mkdir()
    refused = site.restored("storenode")
    assert refused.returncode == 1
    assert "'7' 77 EUR" in refused.stderr
    assert "--overrides set" in refused.stderr
    assert site.content() == {}
    done = site.restored("storenode", "--overrides", word, "--json")
    assert json.loads(done.stdout)["overrides"] == len(found)
    listed = json.loads(site.run("storenode", "override", "--json").stdout)["overrides"]
    assert {each["sku"]: each["amount_minor"] for each in listed} == found


def test_a_time_in_the_backup_moves_no_price_of_another_machine(sites: dict[str, Site]) -> None:
    """A correction is of the clock that it was made for: 30 days more would have begun every price to come."""
    site = sites["storenode"]
    (site.live / "replica.db").unlink()
    now_ms = time.time_ns() // 1_000_000
    ahead = "correction_ms = 2592000000, hold_ms = 1 << 50"
    site.craft(f"UPDATE clock SET known_ms = {now_ms}, wall_ms = {now_ms}, {ahead}")
    assert site.restored("storenode").returncode == 0
    with closing(sqlite3.connect(site.live / "replica.db")) as db:
        (found,) = db.execute("SELECT now_s FROM price_clock").fetchone()
    assert 0 <= found - now_ms // 1000 < 3_600


def test_rows_that_depart_are_proven_as_well(sites: dict[str, Site]) -> None:
    """A stream that is not followed any more is served until its rows are replaced."""
    one = f"SELECT 'price/zone', epoch, position, digest, head_seq, NULL, 0 FROM streams WHERE stream = '{PRICE_ALL}'"
    depart = (
        f"INSERT INTO unfollowed_streams {one}",
        "INSERT INTO prices SELECT 'zone', sku, kind, currency, schedule, seq FROM prices WHERE scope = 'all'",
    )
    site = sites["storenode"]
    site.craft(*depart)
    assert site.restored("storenode").returncode == 0, "the control"
    site.craft("UPDATE prices SET schedule = '[[0,null,1]]' WHERE scope = 'zone' AND sku = '1'")
    done = site.restored("storenode")
    assert (done.returncode, "the rows of price/zone are not HQ's" in done.stderr) == (1, True)


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_backup_is_made_that_a_restore_would_refuse(sites: dict[str, Site], program: str) -> None:
    site = sites[program]
    live = site.live / {"storenode": "replica.db", "hq": "hq.db"}[program]
    with closing(sqlite3.connect(live, isolation_level=None)) as db:
        db.execute(f"CREATE INDEX mine ON {PROGRAMS[program]} (currency)")
    done = site.run(program, "backup", str(site.directory / "second"))
    assert (done.returncode, "index mine is not ours" in done.stderr) == (1, True), done.stderr
    assert [p for p in site.directory.rglob("*") if "second" in p.name and p.is_file()] == []
