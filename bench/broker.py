"""A real broker as a process: mosquitto with the limits of deploy/mosquitto.conf, else the embedded rumqttd."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
"""Debian puts it where only root's PATH looks."""

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
    """A broker on a free port of the loopback, with its files in `directory`, which must exist.

    As a context it is started and stopped. `embedded` takes rumqttd although mosquitto is there.
    """

    def __init__(self, directory: Path, *, embedded: bool = False) -> None:
        self.name = "rumqttd" if embedded or MOSQUITTO is None else "mosquitto"
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self.log = directory / "broker.log"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process that runs now. Raises RuntimeError if none does."""
        if self._process is None:
            raise RuntimeError(f"{self.name} does not run")
        return self._process.pid

    def start(self) -> None:
        """Start, and wait until it accepts connections. Raises RuntimeError with the end of its log."""
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C reaches the bench alone, which then ends the others in order.
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
                return
            time.sleep(POLL_S)
        self.stop()
        raise RuntimeError(f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """End it with SIGTERM (mosquitto then saves what it keeps); a hung one is killed. Again is harmless."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def _command(self) -> list[str]:
        if self.name == "mosquitto":
            config = self._directory / "mosquitto.conf"
            config.write_text(_deployed_config(self.port, self._directory), encoding="utf-8")
            return [str(MOSQUITTO), "-c", str(config)]
        config = self._directory / "rumqttd.toml"
        config.write_text(RUMQTTD_TOML.format(port=self.port), encoding="ascii")
        return [sys.executable, "-m", "iotcore", "--config", str(config)]


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


def _deployed_config(port: int, directory: Path) -> str:
    """The deployed file as it is, but for where it listens and keeps its files."""
    lines = DEPLOYED.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith(("#", "listener "))]
    user = pwd.getpwuid(os.getuid()).pw_name
    own = [f"user {user}", f"listener {port} 127.0.0.1", *kept, f"persistence_location {directory}/", "log_dest stderr"]
    own.append("sys_interval 1")  # the fleet's measure asks what was dropped
    return "\n".join(own) + "\n"
