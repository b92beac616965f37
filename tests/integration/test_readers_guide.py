"""The snippets of docs/readers.md give what they promise, on a replica that a real writer has open."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from storelink.contract.contexts import BUILT_IN
from storelink.contract.rows import EMPTY
from storelink.contract.streams import Stream
from storenode.replica.writer import Replica

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "readers.md").read_text(encoding="utf-8")
ANSWER = "199 EUR"
MILK = (1, "4011", "4006381333931", "Organic Milk", *[None] * 10)


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Path]:
    writer = Replica.open(tmp_path / "replica.db", ("all",), BUILT_IN)
    for context, row in (("product", MILK), ("price", (1, "4011", "regular", "EUR", "[[0,null,199]]"))):
        writer.apply(
            Stream(BUILT_IN[context], "all"),
            epoch="019b76da1000-5f3c9a01",
            position=1,
            digest=EMPTY,
            head_seq=1,
            batches=[([row], [])],
            replace=False,
            wall_ms=1_767_225_600_000,
        )
    writer.feed_search()
    yield writer.path
    writer.connection.close()


def snippet(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    assert len(found) == 1, f"one snippet in {language}"
    return str(found[0])


def output(command: list[str], replica: Path) -> str:
    environ = os.environ | {"REPLICA": str(replica)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().replace("|", " ")


def test_each_query_finds_the_product(replica: Path) -> None:
    reader = sqlite3.connect(f"{replica.as_uri()}?mode=ro", uri=True)
    queries = [text for text in snippet("sql").split(";") if text.strip()]
    found = [reader.execute(query).fetchall() for query in queries]
    assert found[:3] == [
        [("4011", "Organic Milk", 199, "EUR", "regular")],
        [(199, "EUR", "regular", None)],
        [("4011", "Organic Milk")],
    ]
    assert {row[0] for row in found[3]} == {"price/all", "product/all"}
    reader.close()


def test_the_python_snippet_prints_the_price(replica: Path) -> None:
    assert output([sys.executable, "-c", snippet("python")], replica) == ANSWER


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3 command")
def test_the_shell_snippet_prints_the_price(replica: Path) -> None:
    assert output(["sh", "-c", snippet("sh")], replica) == ANSWER


@pytest.mark.skipif(
    shutil.which("cc") is None or not Path("/usr/include/sqlite3.h").exists(), reason="no C compiler with SQLite"
)
def test_the_c_snippet_prints_the_price(replica: Path, tmp_path: Path) -> None:
    source, program = tmp_path / "price.c", tmp_path / "price"
    source.write_text(snippet("c"))
    subprocess.run(["cc", "-Wall", "-Werror", "-o", program, source, "-lsqlite3"], check=True, timeout=60)
    assert output([str(program)], replica) == ANSWER


def has_node_module(name: str) -> bool:
    node = shutil.which("node")
    return node is not None and not subprocess.run([node, "-e", f"require('{name}')"], capture_output=True).returncode


@pytest.mark.skipif(not has_node_module("better-sqlite3"), reason="no Node.js with better-sqlite3")
def test_the_node_snippet_prints_the_price(replica: Path) -> None:
    assert output(["node", "-e", snippet("js")], replica) == ANSWER


def test_datasettes_queries_are_sound(replica: Path) -> None:
    queries = json.loads((ROOT / "docs" / "examples" / "datasette.json").read_text())["databases"]["replica"]["queries"]
    reader = sqlite3.connect(f"{replica.as_uri()}?mode=ro", uri=True)
    values = {"sku": "4011", "gtin": "4006381333931", "text": 'org" OR'}
    rows = {name: reader.execute(query["sql"], values).fetchall() for name, query in queries.items()}
    assert [len(rows[name]) for name in ("price_now", "scan", "search", "freshness")] == [1, 1, 0, 2]
    assert reader.execute(queries["search"]["sql"], {"text": "org"}).fetchall() == [("4011", "Organic Milk")]
    reader.close()
