"""The local API: a lookup of eight clients while a catch-up is applied, against raw sqlite3 behind bare asyncio.

The two servers take turns, in the same replica and under the same writer, so that the machine's mood meets both.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from bench.report import Figure, at_most, middle, told
from testbed.broker import free_port
from testbed.feeds import Grocery
from testbed.process import Process, StepFailed, command, environment

CLIENTS = 8
PAUSE_S = 0.02
"""A till that scans fifty articles a second."""

P99_MS_MAX = 5.0
LIMIT_TIMES_MAX = 3.0
SKUS = 300
START_S = 60.0

Found = dict[str, Any]


def measure(grocery: Grocery, count: int, rounds: int, round_s: float) -> list[Figure]:
    """Figures for a replica of `count` products and as many prices; each round asks both servers for `round_s`."""
    skus = list(grocery.prices)[:: max(len(grocery.prices) // SKUS, 1)]
    with tempfile.TemporaryDirectory(prefix="storenode-bench-") as name:
        directory, ports = Path(name), (free_port(), free_port())
        path = directory / "replica.db"
        api = [command("storenode"), "api", "--listen", f"127.0.0.1:{ports[0]}"]
        processes = [
            _started(_python("refill", str(path), str(count)), {}, directory / "refill.log"),
            _started(api, {"STORENODE_DB": str(path)}, directory / "api.log"),
        ]
        try:
            _await(ports[0], skus[0], processes)
            bare = _python("bare", str(path), str(ports[1]))
            processes.append(_started(bare, {}, directory / "bare.log"))
            _await(ports[1], skus[0], processes)
            asked = (skus, rounds, round_s)
            busy, full = _rounds(ports, PAUSE_S, *asked), _rounds(ports, 0.0, *asked)
            for process in processes:
                process.check()
            processes[0].kill()
            return _figures(busy, full, _rounds(ports, PAUSE_S, *asked), round_s)
        finally:
            for process in processes:
                process.kill()


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"bench.measures.{module}", *arguments]


def _started(arguments: Sequence[str], settings: Mapping[str, str], log: Path) -> Process:
    return Process(arguments, environment(settings), log).start()


def _figures(
    busy: Sequence[Sequence[Found]], full: Sequence[Sequence[Found]], idle: Sequence[Sequence[Found]], round_s: float
) -> list[Figure]:
    (ours, bare), (quiet, quiet_bare) = _medians(busy, "p99_ms"), _medians(idle, "p99_ms")
    rate, bare_rate = (count / round_s for count in _medians(full, "count"))
    name, limit = f"api lookup p99, {CLIENTS} clients at {1 / PAUSE_S:.0f}/s", "sqlite3 behind asyncio"
    return [
        at_most(f"{name}, catching up", ours, "ms", P99_MS_MAX),
        Figure(f"{name}, against the limit", ours, "ms", f"{limit} {bare:.2f} ms", ours / bare, LIMIT_TIMES_MAX, False),
        told(f"{name}, nothing applied", quiet, "ms", f"{limit} {quiet_bare:.2f} ms"),
        told(f"api lookups of {CLIENTS} clients without pause", rate, "1/s", f"{limit} {bare_rate:,.0f} 1/s"),
    ]


def _rounds(
    ports: Sequence[int], pause_s: float, skus: Sequence[str], rounds: int, round_s: float
) -> list[list[Found]]:
    """What the callers of each server found, round by round."""
    return [[_called(port, pause_s, skus, round_s) for port in ports] for _ in range(rounds)]


def _medians(rounds: Sequence[Sequence[Found]], key: str) -> list[float]:
    """For each server the middle of its rounds."""
    return [middle([found[key] for found in of_one]) for of_one in zip(*rounds, strict=True)]


def _called(port: int, pause_s: float, skus: Sequence[str], seconds: float) -> Found:
    arguments = [str(port), str(CLIENTS), str(pause_s), str(seconds), *skus]
    done = subprocess.run(_python("callers", *arguments), capture_output=True, text=True, check=False)
    found: Found = json.loads(done.stdout) if done.returncode == 0 else {"failed": done.stderr[-500:]}
    if found["failed"]:
        raise StepFailed(f"lookups failed: {found['failed']}")
    return found


def _await(port: int, sku: str, processes: Sequence[Process]) -> None:
    """Wait until a server answers with a price, which it does once the replica is filled."""
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        for process in processes:
            process.check()
        try:
            if httpx.get(f"http://127.0.0.1:{port}/prices/{sku}", trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise StepFailed(f"no price from port {port} within {START_S:g} s")
