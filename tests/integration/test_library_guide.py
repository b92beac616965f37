"""The snippets of docs/library-store.md run as they stand, and the page names everything that the library has."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import time
from pathlib import Path

import storenode
from storelink.contract.contexts import BUILT_IN
from storelink.contract.rows import EMPTY
from storelink.contract.streams import Stream
from storenode.catalog import Questions
from storenode.replica.writer import Replica

GUIDE = (Path(__file__).parents[2] / "docs" / "library-store.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
PRINTED = [
    "199 EUR regular",
    "199",
    "1 1",
    "4011 149 True",
    "ReplicaMissing - start the daemon (storenode run), or set --db / STORENODE_DB",
]


def test_each_snippet_prints_what_it_promises(tmp_path: Path) -> None:
    writer = Replica.open(tmp_path / "replica.db", ("all",), BUILT_IN)
    now_ms = time.time_ns() // 1_000_000
    writer.apply(
        Stream(BUILT_IN["price"], "all"),
        epoch="019b76da1000-5f3c9a01",
        position=1,
        digest=EMPTY,
        head_seq=1,
        batches=[([(1, "4011", "regular", "EUR", "[[0,null,199]]")], [])],
        replace=False,
        wall_ms=now_ms,
    )
    writer.heartbeat(store_id="store-7", pid=None, connected=False, started_at_ms=0, counters={}, wall_ms=now_ms)
    printed = []
    for snippet in SNIPPETS:
        done = subprocess.run(
            [sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout.strip())
    writer.connection.close()
    assert printed == PRINTED


def test_the_page_names_every_question_and_every_public_name() -> None:
    for name, _ in inspect.getmembers(Questions, inspect.isfunction):
        if not name.startswith("_"):
            assert f"`{name}(" in GUIDE, name
    for name in storenode.__all__:
        assert re.search(rf"\b{name}\b", GUIDE), name
