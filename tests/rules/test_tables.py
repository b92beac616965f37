"""Each table has one module that writes it: whoever asks how a row came there looks in one place."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

OWNERS = {
    "hq/master/store.py": {"events"},
    "hq/master/rows.py": {"master_*"},
    "hq/master/streams.py": {"streams", "epochs"},
    "hq/master/context_migration.py": {"contexts", "reshapes"},
    "hq/publish/publication.py": {"segments", "payloads", "streams", "run", "foreign_heads"},
    "hq/collect/inbox.py": {"entries", "outboxes", "refused", "stores"},
}
"""`streams` of the publication is a table of another file than `streams` of the master."""

_WRITES = re.compile(
    r"""(?:INSERT(?:\ OR\ \w+)?\ INTO|UPDATE|DELETE\ FROM)\ \[?(\w+)(\{)?  # a statement that names a table
    |insert\(\s*[\w.]+,\s*f?"(\w+)(\{)?[\w.}]*",""",  # storelink.host.sqlite.insert
    re.VERBOSE,
)

STORENODE = ROOT / "storenode"

WRITERS = {
    "daemon": "replica/writer.py",
    "streams": "replica/streams.py",
    "unfollowed_streams": "replica/streams.py",
    "scopes": "replica/streams.py",
    "contexts": "replica/contexts.py",
    "shapes": "replica/contexts.py",
    "overrides": "replica/overrides.py",
    "quarantine": "replica/quarantine.py",
    "commits": "replica/provenance.py",
    "clock": "replica/price_clock.py",
    "search_pending": "replica/search_index.py",
    "read_models": "replica/search_index.py",
}
"""`products`, `prices` and the tables of declared contexts are written under the names that their contexts give."""

ELSEWHERE = {("overrides", "outbox/overrides.py")}
"""A table of the same name in the outbox's file."""

ROWS = re.compile(r"(?:INSERT (?:OR \w+ )?INTO|UPDATE|DELETE FROM) (?:products\b|prices\b|\{context\.table\})")
WRITE = re.compile(r"(?:INSERT (?:OR \w+ )?INTO|UPDATE|DELETE FROM) (\w+)")


def written(text: str) -> set[str]:
    return {(a or b) + ("*" if open_a or open_b else "") for a, open_a, b, open_b in _WRITES.findall(text)} - {"SET"}


def test_each_table_of_hq_has_one_module_that_writes_it() -> None:
    found = {str(path.relative_to(ROOT)): written(path.read_text(encoding="utf-8")) for path in ROOT.glob("hq/**/*.py")}
    assert {name: tables for name, tables in found.items() if tables} == OWNERS


def test_a_table_is_written_by_the_module_that_owns_it_and_by_no_other() -> None:
    found = {
        (table, str(path.relative_to(STORENODE)))
        for path in STORENODE.rglob("*.py")
        for table in WRITE.findall(path.read_text())
        if table in WRITERS
    }
    assert found - ELSEWHERE == set(WRITERS.items())


def test_rows_are_written_by_the_writer() -> None:
    found = {str(p.relative_to(STORENODE)) for p in STORENODE.rglob("*.py") if ROWS.search(p.read_text())}
    assert found == {"replica/writer.py"}
