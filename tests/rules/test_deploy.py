"""What a technician installs is what the programs and the broker accept."""

from __future__ import annotations

import configparser
import os
import pwd
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import hq.config
import storenode.config
from storelink.contract.limits import FETCH_WINDOW, MESSAGE_BYTES_MAX
from testbed.broker import MOSQUITTO, Broker, free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)  # SystemCallFilter= is there twice
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path, encoding="utf-8")
    return parser


def test_the_settings_that_are_shipped_are_accepted() -> None:
    assert hq.config.load({}, DEPLOY / "hq.toml").db == Path("/var/lib/hq/hq.db")
    assert storenode.config.load({}, DEPLOY / "storenode.toml").db == Path("/var/lib/storenode/replica.db")


def test_a_unit_is_ready_when_it_serves_and_is_restarted_for_ever() -> None:
    for path in UNITS:
        found = unit(path)
        assert found["Unit"]["StartLimitIntervalSec"] == "0", "five quick failures would leave it failed"
        assert "network-online" not in found["Unit"]["After"], "a store starts without a network"
        service = found["Service"]
        assert (service["Type"], service["Restart"]) == ("notify", "always")
        assert int(service["WatchdogSec"]) > 0
        assert "DynamicUser" not in service, "its state directory would be closed to tills"
        assert service["StateDirectory"] == path.stem


def test_tills_may_read_the_replica_and_write_nothing() -> None:
    service = unit(DEPLOY / "storenode.service")["Service"]
    assert (service["StateDirectoryMode"], service["UMask"]) == ("0750", "0027")


def test_a_unit_may_reach_its_broker_and_not_much_else() -> None:
    for path in UNITS:
        service = unit(path)["Service"]
        assert sorted(service["RestrictAddressFamilies"].split()) == ["AF_INET", "AF_INET6", "AF_UNIX"]
        assert (service["CapabilityBoundingSet"], service["NoNewPrivileges"]) == ("", "yes")
        assert (service["MemoryDenyWriteExecute"], service["ProtectSystem"]) == ("yes", "strict")
        assert service["LimitCORE"] == "0", "a core would hold the catalog and the broker's password"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_gives_a_unit_an_exposure_of_at_most_one_and_a_half() -> None:
    for path in UNITS:
        command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", str(path)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout[-2000:]


def test_the_installer_is_plain_sh_and_tells_how_it_is_used() -> None:
    installer = DEPLOY / "install.sh"
    assert os.access(installer, os.X_OK)
    assert installer.read_text(encoding="utf-8").startswith("#!/bin/sh\n")
    for shell in filter(shutil.which, ("sh", "dash")):
        run = subprocess.run([shell, "-n", str(installer)], capture_output=True, text=True, check=False)
        assert (run.returncode, run.stderr) == (0, "")
    asked = subprocess.run(["sh", str(installer)], capture_output=True, text=True, check=False)
    assert asked.returncode != 0
    if os.geteuid() == 0:
        assert all(word in asked.stderr for word in ("install.sh store --store-id", "install.sh hq", "uninstall"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_a_unit(tmp_path: Path) -> None:
    for path in UNITS:
        copy = tmp_path / path.name
        # The programs are not installed here; everything else is as shipped.
        text = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", path.read_text(encoding="utf-8"))
        copy.write_text(text, encoding="utf-8")
        run = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
        complaints = [line for line in run.stderr.splitlines() if path.name in line]
        assert complaints == []


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_mosquitto_accepts_its_configuration(tmp_path: Path) -> None:
    """Included from a main file like Debian's, on another port."""
    assert MOSQUITTO is not None
    port = free_port()
    text = (DEPLOY / "mosquitto.conf").read_text(encoding="utf-8")
    included = tmp_path / "conf.d"
    included.mkdir()
    (included / "storenode.conf").write_text(
        text.replace("listener 1883", f"listener {port} 127.0.0.1"), encoding="utf-8"
    )
    main = tmp_path / "mosquitto.conf"
    user = pwd.getpwuid(os.getuid()).pw_name
    main.write_text(
        f"user {user}\npersistence true\npersistence_location {tmp_path}/\nlog_dest stderr\ninclude_dir {included}\n"
    )
    broker = Broker("mosquitto", [MOSQUITTO, "-c", str(main)], tmp_path, port)
    broker.start()
    broker.stop()
    assert "Error" not in broker.log.read_text(encoding="utf-8")


def test_broker_limits_leave_room_for_the_protocol() -> None:
    pairs = re.findall(r"^(\w+) (\d+)$", (DEPLOY / "mosquitto.conf").read_text(encoding="utf-8"), re.MULTILINE)
    limits = {name: int(value) for name, value in pairs}
    assert limits["max_packet_size"] > MESSAGE_BYTES_MAX + 4_096
    assert limits["max_queued_messages"] > 10 * FETCH_WINDOW


def test_the_installer_copies_the_packages_that_there_are() -> None:
    parts = re.search(r"for part in (.*); do", (DEPLOY / "install.sh").read_text(encoding="utf-8"))
    assert parts is not None
    found = set(parts[1].split())
    packages = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text(encoding="utf-8"))
    included = {name.rstrip("*") for name in packages["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert included < found
    assert all((DEPLOY.parent / part).exists() for part in found)
