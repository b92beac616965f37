"""docs/api.md: its examples are typed into a shell as they stand, and answered by a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storelink.contract.contexts import BUILT_IN, Row
from storelink.host.locks import lock_instance
from storenode.api import openapi
from storenode.api.limits import BODY_BYTES_MAX, CONNECTIONS_MAX, IDLE_S, REQUEST_S, TARGET_BYTES_MAX
from storenode.api.problems import CODES
from storenode.replica.writer import Replica
from tests.integration.apiserver import PRICE, PRODUCT, ApiServer, beat, put

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
ADDRESS = "127.0.0.1:8417"
VARYING = {"as_of", "stale_seconds", "epoch", "time"}

BANANAS: Row = (
    1,
    "4011",
    "4006381333931",
    "Organic Bananas",
    None,
    "Finca",
    "produce",
    "fruit",
    None,
    "1 kg",
    None,
    None,
    "active",
    '{"organic":true}',
)
LINE: Row = (1, "4011", "regular", "EUR", "[[1767225600,2082758400,199],[2082758400,null,179]]")


def examples() -> list[tuple[str, str]]:
    """Each `$ command` of the console blocks with what stands below it."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output.strip()))
    return found


def settled(text: str) -> Any:
    """A document without what differs from one time to the next; anything but JSON as it is."""
    try:
        return _without_varying(json.loads(text))
    except ValueError:
        return text


def _without_varying(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, None if key in VARYING else _without_varying(each)) for key, each in value.items()]
    return [_without_varying(each) for each in value] if isinstance(value, list) else value


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_example_is_answered_as_the_page_says(tmp_path: Path) -> None:
    replica = Replica.open(tmp_path / "replica.db", ("all",), BUILT_IN)
    put(replica, PRODUCT, [BANANAS])
    put(replica, PRICE, [LINE])
    replica.feed_search()
    beat(replica)
    lock = lock_instance(Path(f"{replica.path}.lock"))
    assert lock is not None
    with lock, closing(replica.connection):
        server = ApiServer(replica.path)
        # One shell for all: the page sets a variable. The mark keeps the outputs apart.
        script = "\necho @@@\n".join(command.replace(ADDRESS, server.address) for command, _ in examples())
        environ = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=True, env=environ)
        with server.client() as client:
            metrics = set(re.findall(r"^# TYPE (\S+)", client.get("/metrics").text, re.MULTILINE))
        server.stop()
    for name in metrics:
        assert f"`{name}`" in TEXT, name
    answers = [part.strip() for part in done.stdout.split("@@@")]
    assert len(answers) == len(examples()) > 10
    for (command, told), answer in zip(examples(), answers, strict=True):
        assert settled(answer) == settled(told), command


def test_the_page_names_every_route_every_code_and_the_limits() -> None:
    for path in openapi.document()["paths"]:
        assert f"`{path}" in TEXT or f" {path}" in TEXT, path
    for code in CODES:
        assert f"`{code}`" in TEXT, code
    assert (BODY_BYTES_MAX, TARGET_BYTES_MAX, REQUEST_S, CONNECTIONS_MAX, IDLE_S) == (131_072, 4_096, 10, 256, 75)
