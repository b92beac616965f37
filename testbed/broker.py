"""A real broker as a process: mosquitto, or the rumqttd that is embedded in iotcore."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
"""Debian puts it where only root's PATH looks; None: it is not installed."""

DEPLOYED = Path(__file__).resolve().parent.parent / "deploy" / "mosquitto.conf"
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.02

RUMQTTD_TOML = """\
id = 0
[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v5.1]
name = "mqtt5"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 0
    [v5.1.connections]
    connection_timeout_ms = 60000
    max_payload_size = 1048576
    max_inflight_count = 200
    dynamic_filters = true
"""


class Broker:
    """A broker process on the loopback. As a context it is started, unless it runs, and stopped; its files stay."""

    def __init__(self, name: str, command: Sequence[str], directory: Path, port: int) -> None:
        self.name = name
        self.command = list(command)
        self.directory = directory
        self.port = port
        self.url = f"mqtt://127.0.0.1:{port}"
        self.log = directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process that runs now. Raises RuntimeError if none does."""
        if self._process is None:
            raise RuntimeError(f"{self.name} does not run")
        return self._process.pid

    def start(self) -> None:
        """Start, and wait until it accepts connections. Raises RuntimeError with the end of its log."""
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C reaches the test bed alone, which then ends the others in order.
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s and self.running:
            if self.answers():
                return
            time.sleep(POLL_S)
        self.kill()
        raise RuntimeError(f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-2000:]}")

    def answers(self) -> bool:
        """Whether it accepts connections."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
            return True
        return False

    def stop(self) -> None:
        """End it with SIGTERM (mosquitto then saves what it keeps); one that hangs is killed. Again is harmless."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
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
        if not self.running:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def mosquitto(directory: Path, port: int, *, settings: str = "") -> Broker:
    """A mosquitto, not started yet; `settings` are further lines of its configuration, for the one listener."""
    anonymous = "" if "allow_anonymous" in settings else "allow_anonymous true\n"
    config = directory / "mosquitto.conf"
    config.write_text(
        f"user {_user()}\nlistener {port} 127.0.0.1\n{anonymous}set_tcp_nodelay true\nmax_queued_messages 20000\n"
        f"persistence true\npersistence_location {directory}/\nlog_dest stderr\n{settings}\n"
    )
    return Broker("mosquitto", [_mosquitto(), "-c", str(config)], directory, port)


def mosquitto_as_deployed(directory: Path, port: int) -> Broker:
    """With deploy/mosquitto.conf as it is, but for where it listens and keeps its files."""
    lines = DEPLOYED.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith(("#", "listener "))]
    own = [f"user {_user()}", f"listener {port} 127.0.0.1"]
    own += [*kept, f"persistence_location {directory}/", "log_dest stderr"]
    own.append("sys_interval 1")  # the fleet's measure asks what was dropped
    config = directory / "mosquitto.conf"
    config.write_text("\n".join(own) + "\n", encoding="utf-8")
    return Broker("mosquitto", [_mosquitto(), "-c", str(config)], directory, port)


def rumqttd(directory: Path, port: int) -> Broker:
    """The broker embedded in iotcore, not started yet; it keeps nothing across restarts."""
    config = directory / "rumqttd.toml"
    config.write_text(RUMQTTD_TOML.format(port=port), encoding="ascii")
    return Broker("rumqttd", [sys.executable, "-m", "iotcore", "--config", str(config)], directory, port)


def start_mosquitto(directory: Path, port: int, *, settings: str = "") -> Broker:
    broker = mosquitto(directory, port, settings=settings)
    broker.start()
    return broker


def start_rumqttd(directory: Path, port: int) -> Broker:
    broker = rumqttd(directory, port)
    broker.start()
    return broker


def free_port() -> int:
    """A TCP port of the loopback that nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def version() -> str:
    """What the broker calls itself, such as `mosquitto version 2.0.11`."""
    if MOSQUITTO is None:
        return "rumqttd embedded in iotcore"
    done = subprocess.run([MOSQUITTO, "-h"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0].strip()


def _mosquitto() -> str:
    if MOSQUITTO is None:
        raise RuntimeError("mosquitto is not installed")
    return MOSQUITTO


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name
