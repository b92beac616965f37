"""Real brokers as processes, and lines to them that can be cut, for tests."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.broker import MOSQUITTO as MOSQUITTO
from bench.broker import RUMQTTD_TOML
from bench.broker import free_port as free_port
from bench.line import Line as Line

START_TIMEOUT_S = 10.0


class RealBroker:
    """A broker process on the loopback. As a context it stops at the end; files stay in its directory."""

    def __init__(self, name: str, command: Sequence[str], directory: Path, port: int) -> None:
        self.name = name
        self.port = port
        self.url = f"mqtt://127.0.0.1:{port}"
        self.log = directory / f"{name}.log"
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it accepts connections."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
                return
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """End it with SIGTERM (mosquitto then saves what it keeps); a hung one is killed."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL: retained messages are lost, if its persistence has not saved them by chance."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


def start_mosquitto(directory: Path, port: int, *, settings: str = "") -> RealBroker:
    """Start mosquitto; `settings` are further lines of its configuration, for the one listener."""
    if MOSQUITTO is None:
        raise RuntimeError("mosquitto is not installed")
    user = pwd.getpwuid(os.getuid()).pw_name
    anonymous = "" if "allow_anonymous" in settings else "allow_anonymous true\n"
    config = directory / "mosquitto.conf"
    config.write_text(
        f"user {user}\nlistener {port} 127.0.0.1\n{anonymous}set_tcp_nodelay true\nmax_queued_messages 20000\n"
        f"persistence true\npersistence_location {directory}/\nlog_dest stderr\n{settings}\n"
    )
    broker = RealBroker("mosquitto", [MOSQUITTO, "-c", str(config)], directory, port)
    broker.start()
    return broker


def start_rumqttd(directory: Path, port: int) -> RealBroker:
    """Start the broker embedded in iotcore; it keeps nothing across restarts."""
    config = directory / "rumqttd.toml"
    config.write_text(RUMQTTD_TOML.format(port=port))
    broker = RealBroker("rumqttd", [sys.executable, "-m", "iotcore", "--config", str(config)], directory, port)
    broker.start()
    return broker
