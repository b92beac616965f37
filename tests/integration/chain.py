"""A whole chain of real processes: one broker, one HQ, stores; each line can be cut."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from storelink.contract.digest import EMPTY
from tests.brokers import MOSQUITTO, Line, RealBroker, free_port, start_mosquitto, start_rumqttd
from tests.integration import commands

WAIT_S = 40.0
HEARTBEAT_S = "1"
"""Of HQ; five by default, which is long for a test that waits for three of them."""

BIN = Path(sys.executable).parent
STREAMS = ("price/all", "product/all")


def until(condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Wait for a condition, with a bound."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.03)


class Process:
    """One of our commands, running as a daemon; its log is kept in a file."""

    def __init__(self, arguments: list[str], environ: dict[str, str], log: Path) -> None:
        self._arguments, self.environ, self.log = arguments, environ, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(20)
        self._process = None
        return code

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def end(self) -> None:
        if self.running:
            self.stop(signal.SIGKILL)


class Chain:
    """Built in a directory of its own; `close` ends every process."""

    def __init__(self, directory: Path, *, start_broker: bool = True) -> None:
        self.directory = directory
        self.port = free_port()
        self.broker: RealBroker | None = self._broker() if start_broker else None
        self.lines: dict[str, Line] = {}
        self.stores: dict[str, Process] = {}
        self.extra: dict[str, str] = {}
        self.hq_run = Process([str(BIN / "hq"), "run"], self._hq_environ(), directory / "hq.log")
        self.hq("init")

    def _broker(self) -> RealBroker:
        start = start_rumqttd if MOSQUITTO is None else start_mosquitto
        return start(self.directory, self.port)

    def start_broker(self) -> None:
        self.broker = self._broker()

    def close(self) -> None:
        for process in (self.hq_run, *self.stores.values()):
            process.end()
        for line in self.lines.values():
            line.close()
        if self.broker is not None:
            self.broker.stop()

    def _hq_environ(self) -> dict[str, str]:
        return os.environ | {
            "HQ_DB": str(self.directory / "hq.db"),
            "HQ_BROKER": f"mqtt://127.0.0.1:{self.port}",
            "HQ_HEARTBEAT_S": HEARTBEAT_S,
        }

    def _store_environ(self, name: str) -> dict[str, str]:
        return (
            os.environ
            | self.extra
            | {
                "STORENODE_DB": str(self.replica(name)),
                "STORENODE_STORE_ID": name,
                "STORENODE_BROKER": self.lines[name].url,
            }
        )

    def replica(self, name: str) -> Path:
        return self.directory / name / "replica.db"

    def add_store(self, name: str) -> Process:
        self.replica(name).parent.mkdir(exist_ok=True)
        self.lines.setdefault(name, Line(self.port))
        process = Process([str(BIN / "storenode"), "run"], self._store_environ(name), self.directory / f"{name}.log")
        self.stores[name] = process
        process.start()
        return process

    def hq(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self._command("hq", arguments, self._hq_environ(), check=check)

    def store(self, name: str, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        return self._command("storenode", arguments, self._store_environ(name), check=check)

    def _command(
        self, program: str, arguments: tuple[str, ...], environ: dict[str, str], *, check: bool
    ) -> subprocess.CompletedProcess[str]:
        done = commands.run(program, arguments, environ)
        assert not check or done.returncode == 0, f"{program} {arguments}: {done.stdout}{done.stderr}"
        return done

    def master(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.hq("status", "--json").stdout)["streams"]
        return found

    def import_prices(self, count: int, amount: str, *, first: int = 1) -> None:
        self._import_prices("".join(f"{sku},{amount},EUR\n" for sku in range(first, first + count)))

    def import_amounts(self, amounts_minor: dict[str, int]) -> None:
        self._import_prices("".join(f"{sku},{n // 100}.{n % 100:02},EUR\n" for sku, n in amounts_minor.items()))

    def _import_prices(self, rows: str) -> None:
        file = self.directory / "prices.csv"
        file.write_text("sku,amount,currency\n" + rows)
        self.hq("import", "price", str(file))

    def wait_published(self) -> None:
        until(lambda: all(s["published"] == s["head_seq"] for s in self.master().values()), "HQ has published all")

    def equal(self, name: str) -> bool:
        """Whether a store's rows, scanned, hash to HQ's digests."""
        scanned = json.loads(self.store(name, "verify", "--json").stdout or '{"streams": {}}')["streams"]
        return {n: s["digest"] for n, s in scanned.items()} == {n: s["digest"] for n, s in self.master().items()}

    def _has_arrived(self, name: str) -> bool:
        """Whether a store says of itself that it is where HQ is; looked up in the files, which costs no process."""
        try:
            there, at_hq = (_digests(path) for path in (self.replica(name), self.directory / "hq.db"))
        except sqlite3.DatabaseError:
            return False
        return bool(there) and all(at_hq.get(stream, EMPTY) == digest for stream, digest in there.items())

    def wait_equal(self, *names: str) -> None:
        for name in names:
            until(lambda name=name: self._has_arrived(name), f"{name} has what HQ has")  # type: ignore[misc]
            until(lambda name=name: self.equal(name), f"{name} equals HQ")  # type: ignore[misc]


def _digests(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        return dict(db.execute("SELECT stream, digest FROM streams"))
