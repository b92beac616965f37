"""A small chain of real processes: the embedded broker, HQ, and stores with a line each, all in one directory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.broker import RUMQTTD_TOML, free_port
from bench.line import Line

WAIT_S = 60.0
STOP_S = 10.0
POLL_S = 0.1


class ChainFailed(Exception):
    """A step did not come about; the message says which, and shows what the process wrote."""


class Chain:
    """Starts what it is told to; `close` ends everything, in reverse order, and says what did not end well."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.lines: dict[str, Line] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start_broker(self) -> None:
        config = self.directory / "broker.toml"
        config.write_text(RUMQTTD_TOML.format(port=self.port), encoding="ascii")
        self._start("broker", [sys.executable, "-m", "iotcore", "--config", str(config)], {})
        self.wait("the broker listens", self._listens)

    def start_hq(self) -> None:
        self._start("hq", [_command("hq"), "run"], self._hq_settings)

    def start_store(self, name: str) -> None:
        """Start a store behind a line of its own."""
        self.replica(name).parent.mkdir()
        self.lines[name] = Line(self.port)
        self._start(name, [_command("storenode"), "run"], self._store_settings(name))

    def hq(self, *arguments: str) -> Any:
        """Run `hq ... --json`; return what it prints."""
        return self._ask([_command("hq"), *arguments, "--json"], self._hq_settings, codes=(0,))

    def store(self, name: str, *arguments: str, codes: Sequence[int] = (0,)) -> Any:
        """Run `storenode ... --json` on a store's machine; return what it prints."""
        return self._ask([_command("storenode"), *arguments, "--json"], self._store_settings(name), codes=codes)

    def status(self, name: str) -> Any:
        """What the store says of itself; None before it has made its replica."""
        return self.store(name, "status", codes=(0, 1, 2, 3))

    def replica(self, name: str) -> Path:
        return self.directory / name / "replica.db"

    def wait(self, what: str, condition: Callable[[], bool]) -> float:
        """Wait until a condition holds; return the seconds it took. Raises ChainFailed after WAIT_S."""
        began = time.monotonic()
        while not condition():
            self._check_alive()
            if time.monotonic() - began > WAIT_S:
                raise ChainFailed(f"not within {WAIT_S:g} s: {what}; the logs are in {self.directory}")
            time.sleep(POLL_S)
        return time.monotonic() - began

    def close(self) -> list[str]:
        """End every process and line. Returns what did not end by itself when asked to."""
        complaints = []
        for name in reversed(list(self._running)):
            process = self._running.pop(name)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                complaints.append(f"{name} did not end within {STOP_S:g} s of SIGTERM")
            if name != "broker" and process.returncode > 0:
                complaints.append(f"{name} ended with exit code {process.returncode}")
        for line in self.lines.values():
            line.close()
        return complaints

    @property
    def _hq_settings(self) -> dict[str, str]:
        return {"HQ_DB": str(self.directory / "hq.db"), "HQ_BROKER": f"mqtt://127.0.0.1:{self.port}"}

    def _store_settings(self, name: str) -> dict[str, str]:
        return {
            "STORENODE_DB": str(self.replica(name)),
            "STORENODE_STORE_ID": name,
            "STORENODE_BROKER": self.lines[name].url,
        }

    def _start(self, name: str, arguments: list[str], settings: dict[str, str]) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            # A session of its own: Ctrl-C reaches the demo alone, which then ends the others in order.
            self._running[name] = subprocess.Popen(
                arguments,
                env=_clean_environment() | settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _ask(self, arguments: list[str], settings: dict[str, str], *, codes: Sequence[int]) -> Any:
        done = subprocess.run(
            arguments, env=_clean_environment() | settings, capture_output=True, text=True, timeout=WAIT_S, check=False
        )
        if done.returncode not in codes:
            shown = " ".join([Path(arguments[0]).name, *arguments[1:]])
            raise ChainFailed(f"`{shown}` ended with exit code {done.returncode}: {done.stderr.strip()[-500:]}")
        return json.loads(done.stdout) if done.stdout else None

    def _check_alive(self) -> None:
        for name, process in self._running.items():
            if process.poll() is not None:
                tail = (self.directory / f"{name}.log").read_text(errors="replace")[-1_000:]
                raise ChainFailed(f"{name} ended by itself with exit code {process.returncode}:\n{tail}")

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 0.2).close()
        except OSError:
            return False
        return True


def empty_directory(path: Path) -> Path:
    """Make the directory, or empty it if an earlier run left it."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def _clean_environment() -> dict[str, str]:
    """Nobody's own settings may reach the demo."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("HQ_", "STORENODE_"))}


def _command(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ChainFailed(f"the command {name} is not installed; try `make demo`")
    return found
