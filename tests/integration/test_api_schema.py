"""The served OpenAPI document against the server that serves it: schemathesis asks what the document allows, and more.

It runs as a process of its own: what it imports and warns of stays there.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from storelink.host.locks import lock_instance
from tests.integration.apiserver import ApiServer, filled

SEED = 20261125
RUN_TIMEOUT_S = 180


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    """Of a store that is live, so that no answer may be a 5xx."""
    replica = filled(tmp_path / "replica.db")
    lock = lock_instance(Path(f"{replica.path}.lock"))
    assert lock is not None
    with lock, closing(replica.connection):
        server = ApiServer(replica.path)
        yield server
        server.stop(signal.SIGKILL)


def test_every_answer_is_one_that_the_document_promises(server: ApiServer, tmp_path: Path) -> None:
    program = str(Path(sys.executable).parent / "schemathesis")
    done = subprocess.run(
        [
            program,
            "--config-file",
            os.devnull,
            "run",
            f"http://{server.address}/openapi.json",
            "--no-color",
            "--checks",
            "all",
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            "12",
            "--seed",
            str(SEED),
            "--generation-deterministic",
            "--request-timeout",
            "20",
            "--continue-on-failure",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
        env={n: v for n, v in os.environ.items() if "proxy" not in n.lower()},
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    with server.client() as client:
        routes = len(client.get("/openapi.json").json()["paths"])
    found = re.search(r"Operations: +(\d+) selected / (\d+) total", told)
    assert found, told
    assert (int(found[1]), int(found[2])) == (routes - 1, routes - 1), f"all but the document's own route: {told}"
    generated = re.search(r"(\d+) generated", told)
    assert generated, told
    assert int(generated[1]) > 100, told
    assert "request.failed" not in [json.loads(line)["event"] for line in server.log.read_text().splitlines()]
