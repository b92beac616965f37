"""One table of a replica has one writing module."""

from __future__ import annotations

import re
from pathlib import Path

STORENODE = Path(__file__).parents[2] / "storenode"

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
