"""Each table of the outbox's file has one module that writes it: the one under which its schema stands."""

from __future__ import annotations

import re
from pathlib import Path

from storenode.outbox.file import TABLES

ROOT = Path(__file__).parents[2]
OF_THE_REPLICA = {"storenode.replica.overrides": {"overrides"}}
"""The replica has a table of this name too."""


def test_each_table_of_the_outbox_is_written_by_its_owner_alone() -> None:
    owners = {table: owner for owner, sql in TABLES.items() for table in re.findall(r"CREATE TABLE (\w+)", sql)}
    assert owners.keys() == {"entries", "refused", "outbox", "overrides", "availability", "jobs"}
    writes = re.compile(rf"(?:INSERT (?:OR \w+ )?INTO|UPDATE|DELETE FROM|REPLACE INTO) ({'|'.join(owners)})\b")
    made_by = {"storenode.outbox.file": {"outbox"}}  # its first row is there before the file has its name
    found: dict[str, set[str]] = {}
    for path in (ROOT / "storenode").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        tables = set(writes.findall(path.read_text(encoding="utf-8")))
        tables -= OF_THE_REPLICA.get(module, set()) | made_by.get(module, set())
        for table in tables:
            found.setdefault(table, set()).add(module)
    assert found == {table: {owner} for table, owner in owners.items()}
