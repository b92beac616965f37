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


def written(text: str) -> set[str]:
    return {(a or b) + ("*" if open_a or open_b else "") for a, open_a, b, open_b in _WRITES.findall(text)} - {"SET"}


def test_each_table_of_hq_has_one_module_that_writes_it() -> None:
    found = {str(path.relative_to(ROOT)): written(path.read_text(encoding="utf-8")) for path in ROOT.glob("hq/**/*.py")}
    assert {name: tables for name, tables in found.items() if tables} == OWNERS
