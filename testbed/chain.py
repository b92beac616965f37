"""A chain of real processes in one directory: a broker, HQ, and stores, each behind a line that can be cut."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from storelink.contract.rows import EMPTY
from testbed import commands
from testbed.broker import MOSQUITTO, Broker, free_port, mosquitto, rumqttd
from testbed.cut_line import Line
from testbed.process import WAIT_S, Process, StepFailed, command, environment, until

QUICK = {"HQ_HEARTBEAT_S": "1"}
"""Five seconds by default, which is long for a test that waits for three heartbeats."""


class Chain:
    """Makes its broker and HQ at once, starts what it is told to; `close`, also as a context, ends every process.

    Args:
        start_broker: whether the broker runs from the start.
        hq_settings: of HQ, beside where its files and its broker are.
        run: how commands are run: forked for tests, spawned where their start counts.
    """

    def __init__(
        self,
        directory: Path,
        *,
        start_broker: bool = True,
        hq_settings: Mapping[str, str] = QUICK,
        run: commands.Runner = commands.run,
    ) -> None:
        self.directory = directory
        self.port = free_port()
        self.extra: dict[str, str] = {}
        self.lines: dict[str, Line] = {}
        self.stores: dict[str, Process] = {}
        self._hq_settings, self._run = hq_settings, run
        self.broker = self.make_broker()
        if start_broker:
            self.broker.start()
        self.hq_run = Process([command("hq"), "run"], self.hq_environ(), directory / "hq.log")
        try:
            self.hq("init")
        except BaseException:
            self.close()
            raise

    def make_broker(self) -> Broker:
        """A broker on `port` that is not started yet: mosquitto, or rumqttd where there is none."""
        return rumqttd(self.directory, self.port) if MOSQUITTO is None else mosquitto(self.directory, self.port)

    def start_broker(self) -> None:
        self.broker.start()

    def close(self) -> None:
        for process in (self.hq_run, *self.stores.values()):
            process.kill()
        for line in self.lines.values():
            line.close()
        self.broker.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def master_path(self) -> Path:
        return self.directory / "hq.db"

    def replica(self, name: str) -> Path:
        return self.directory / name / "replica.db"

    def hq_environ(self) -> dict[str, str]:
        own = {"HQ_DB": str(self.master_path), "HQ_BROKER": f"mqtt://127.0.0.1:{self.port}"}
        return environment(own | dict(self._hq_settings))

    def store_environ(self, name: str) -> dict[str, str]:
        own = {
            "STORENODE_DB": str(self.replica(name)),
            "STORENODE_STORE_ID": name,
            "STORENODE_BROKER": self.broker_url(name),
        }
        return environment(self.extra | own)

    def broker_url(self, name: str) -> str:
        """The broker as a store sees it: behind its line."""
        return self.lines[name].url

    def add_store(self, name: str) -> Process:
        """Start a store behind a line of its own."""
        self.replica(name).parent.mkdir(exist_ok=True)
        self.lines.setdefault(name, Line(self.port))
        arguments = [command("storenode"), "run"]
        self.stores[name] = Process(arguments, self.store_environ(name), self.directory / f"{name}.log")
        return self.stores[name].start()

    def hq(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `hq ARGUMENTS`; `check`: StepFailed if its exit code is not 0."""
        return self._command("hq", arguments, self.hq_environ(), codes=(0,) if check else ())

    def store(self, name: str, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run `storenode ARGUMENTS` on a store's machine."""
        return self._command("storenode", arguments, self.store_environ(name), codes=(0,) if check else ())

    def hq_json(self, *arguments: str) -> Any:
        """What `hq ARGUMENTS --json` prints."""
        return json.loads(self.hq(*arguments, "--json").stdout)

    def store_json(self, name: str, *arguments: str, codes: Sequence[int] = (0,)) -> Any:
        """What `storenode ARGUMENTS --json` prints on a store's machine; None if that is nothing."""
        done = self._command("storenode", (*arguments, "--json"), self.store_environ(name), codes=codes)
        return json.loads(done.stdout) if done.stdout else None

    def _command(
        self, program: str, arguments: Sequence[str], environ: Mapping[str, str], *, codes: Sequence[int]
    ) -> subprocess.CompletedProcess[str]:
        done = self._run(program, arguments, environ)
        if codes and done.returncode not in codes:
            shown = " ".join([program, *arguments])
            raise StepFailed(f"`{shown}` ended with exit code {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def master(self) -> dict[str, Any]:
        """What HQ says of its streams."""
        found: dict[str, Any] = self.hq_json("status")["streams"]
        return found

    def import_prices(self, count: int, amount: str, *, first: int = 1) -> None:
        self._import_prices("".join(f"{sku},{amount},EUR\n" for sku in range(first, first + count)))

    def import_amounts(self, amounts_minor: dict[str, int]) -> None:
        self._import_prices("".join(f"{sku},{n // 100}.{n % 100:02},EUR\n" for sku, n in amounts_minor.items()))

    def _import_prices(self, rows: str) -> None:
        file = self.directory / "prices.csv"
        file.write_text("sku,amount,currency\n" + rows)
        self.hq("import", "price", str(file))

    def wait(self, what: str, condition: Callable[[], bool], timeout_s: float = WAIT_S) -> float:
        """Wait until a condition holds, while every process lives; return the seconds it took. Raises StepFailed."""

        def holds() -> bool:
            for process in (self.hq_run, *self.stores.values()):
                if process.began_s:
                    process.check()
            return condition()

        return until(holds, f"{what}; the logs are in {self.directory}", timeout_s)

    def wait_published(self) -> None:
        until(lambda: all(s["published"] == s["head_seq"] for s in self.master().values()), "HQ has published all")

    def equal(self, name: str) -> bool:
        """Whether a store's rows, scanned, hash to HQ's digests."""
        scanned = json.loads(self.store(name, "verify", "--json").stdout or '{"streams": {}}')["streams"]
        return {n: s["digest"] for n, s in scanned.items()} == {n: s["digest"] for n, s in self.master().items()}

    def _has_arrived(self, name: str) -> bool:
        """Whether a store says of itself that it is where HQ is; looked up in the files, which costs no process."""
        try:
            there, at_hq = (_digests(path) for path in (self.replica(name), self.master_path))
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
