"""Started, watched and stopped by the real systemd, with the units that are shipped."""

from __future__ import annotations

import os
import signal
import time

import pytest

from testbed.process import until
from tests.system.site import Site

WATCHDOG_S = 6
RESTART_SLACK_S = 3


def test_a_unit_is_ready_when_it_serves(site: Site) -> None:
    """`systemctl start` returns at READY=1: from then on there is nothing left to wait for, broker or no broker."""
    site.run("systemctl", "stop", "storenode", "hq", "mosquitto")
    try:
        site.run("systemctl", "start", "storenode")
        found = site.status()
        assert (found["pid"], found["state"]) == (site.main_pid("storenode"), "offline")
        assert site.price_minor("4011") == 199
        site.run("systemctl", "start", "hq")
        site.run("hq", "publish", "price", "sku=7000", "amount=1.00", "currency=EUR")
    finally:
        site.run("systemctl", "start", "mosquitto")
    site.wait_live()


def test_one_that_cannot_serve_is_never_ready_and_never_given_up(site: Site) -> None:
    settings = site.path("/etc/storenode/storenode.toml")
    kept = settings.read_text()
    settings.write_text(kept + "nonsense = 1\n")
    try:
        assert site.fails("systemctl", "restart", "storenode")
        until(lambda: int(site.show("storenode", "NRestarts")) >= 2, "it is tried again")
        assert site.show("storenode", "ActiveState") == "activating"
        assert site.code("storenode", "status") == 3
    finally:
        settings.write_text(kept)
    until(lambda: site.show("storenode", "ActiveState") == "active", "it comes up by itself once it can")


@pytest.mark.parametrize("unit", ["storenode", "hq"])
def test_sigterm_ends_it_in_time_with_a_broker_that_swallows_everything(site: Site, unit: str) -> None:
    with site.black_hole():
        site.run("storenode", "emit", "black.hole", "1")
        site.run("hq", "publish", "price", "sku=7001", f"amount=1.{len(unit):02}", "currency=EUR")
        site.run("systemctl", "stop", unit)
        assert (site.show(unit, "Result"), site.show(unit, "ExecMainStatus")) == ("success", "0")
    site.run("systemctl", "start", unit)
    site.wait_live()
    until(lambda: [e for e in site.inbox() if e["type"] == "black.hole"] != [], "what was emitted is not lost")


@pytest.mark.parametrize("unit", ["storenode", "hq"])
def test_one_that_hangs_is_killed_and_started_again(site: Site, unit: str) -> None:
    with site.drop_in(unit, f"WatchdogSec={WATCHDOG_S}"):
        before, began_us = site.main_pid(unit), time.monotonic_ns() // 1000
        os.kill(site.container.host_pid(before), signal.SIGSTOP)
        until(lambda: site.main_pid(unit) not in (0, before), "another process", WATCHDOG_S + 20)
        # By systemd's own clock, which is this machine's: what this test's looking takes is not counted.
        took_s = (int(site.show(unit, "ExecMainStartTimestampMonotonic")) - began_us) / 1e6
        assert took_s <= WATCHDOG_S + RESTART_SLACK_S
        until(lambda: site.show(unit, "ActiveState") == "active", "it serves again")
        said = site.run("journalctl", f"--unit={unit}", "--boot", "--no-pager", "--output=cat")
        assert "Watchdog timeout" in said
        site.wait_live()


def test_twenty_deaths_in_a_row_never_leave_the_unit_failed(site: Site) -> None:
    """systemd gives up after five quick ones unless it is told not to."""
    with site.drop_in("storenode", "RestartSec=100ms"):
        for _ in range(20):
            pid = site.main_pid("storenode")
            os.kill(site.container.host_pid(pid), signal.SIGKILL)
            until(lambda pid=pid: site.main_pid("storenode") not in (0, pid), "another process")  # type: ignore[misc]
        assert int(site.show("storenode", "NRestarts")) >= 20
        until(lambda: site.show("storenode", "ActiveState") == "active", "it is up")
        site.wait_live()
        assert site.price_minor("4011", user="till") == 199


def test_a_reload_takes_new_settings_in_the_same_unit(site: Site) -> None:
    """The daemon becomes itself anew, inside its sandbox and under the same watch."""
    settings = site.path("/etc/storenode/storenode.toml")
    kept, pid, restarts = settings.read_text(), site.main_pid("storenode"), site.show("storenode", "NRestarts")
    settings.write_text(kept.replace('scopes = "all"', 'scopes = "all,zone-west"'))
    try:
        site.run("systemctl", "reload", "storenode")
        until(lambda: "price/zone-west" in site.status()["streams"], "it follows the zone")
        site.wait_live()
        assert (site.main_pid("storenode"), site.show("storenode", "NRestarts")) == (pid, restarts)
    finally:
        settings.write_text(kept)
        site.run("systemctl", "reload", "storenode")
    until(lambda: "price/zone-west" not in site.status()["streams"], "and leaves it")
