"""Who may read, write and send what, on the machine itself: tills are other users."""

from __future__ import annotations

import os
import re
import signal

import pytest

from testbed.process import until
from tests.system import tree
from tests.system.site import Site

REPLICA = "/var/lib/storenode/replica.db"
PYTHON = "/opt/storenode/bin/python"
READ = f"""
import sqlite3
db = sqlite3.connect("file:{REPLICA}?mode=ro", uri=True)
print(db.execute("SELECT amount_minor FROM current_prices WHERE sku = '4011'").fetchone()[0])
"""
WRITE = f"""
import sqlite3
db = sqlite3.connect("{REPLICA}")
db.execute("UPDATE prices SET currency = 'XXX'")
"""


def as_left_by_a_clean_stop(site: Site) -> None:
    site.run("systemctl", "stop", "storenode")
    assert site.show("storenode", "Result") == "success"


def as_left_by_kill_9(site: Site) -> None:
    site.run("systemctl", "mask", "--runtime", "storenode")  # so that systemd does not start it again meanwhile
    os.kill(host_pid(site), signal.SIGKILL)
    until(lambda: site.main_pid("storenode") == 0, "it is dead")
    site.run("systemctl", "unmask", "--runtime", "storenode")
    site.run("systemctl", "stop", "storenode")


def host_pid(site: Site) -> int:
    return site.container.host_pid(site.main_pid("storenode"))


@pytest.mark.parametrize("stop", [as_left_by_a_clean_stop, as_left_by_kill_9])
def test_a_till_reads_a_stopped_store_and_cannot_harm_it(site: Site, stop: object) -> None:
    stop(site)  # type: ignore[operator]
    try:
        assert site.run(PYTHON, "-c", READ, user="till").strip() == "199"
        assert site.price_minor("4011", user="till") == 199
        assert "readonly" in site.fails(PYTHON, "-c", WRITE, user="till")
        for name in (REPLICA, f"{REPLICA}-wal", f"{REPLICA}-shm", "/var/lib/storenode/outbox.db"):
            assert "denied" in site.fails("rm", "-f", name, user="till")
            assert "denied" in site.fails("mv", name, f"{name}.away", user="till")
        assert "denied" in site.fails("touch", "/var/lib/storenode/new", user="till")
        assert "denied" in site.fails("sh", "-c", f"echo >> {REPLICA}", user="till")
    finally:
        site.run("systemctl", "start", "storenode")


def test_a_till_reads_while_the_daemon_runs_and_cannot_stop_it(site: Site) -> None:
    pid = site.main_pid("storenode")
    assert site.run(PYTHON, "-c", READ, user="till").strip() == "199"
    assert site.code("storenode", "status", user="till") == 0
    assert "not permitted" in site.fails("sh", "-c", f"kill -9 {pid}", user="till")
    assert "denied" in site.fails("cat", f"/proc/{pid}/mem", user="till").lower()
    assert site.main_pid("storenode") == pid


def test_a_stranger_reads_nothing(site: Site) -> None:
    for path in ("/var/lib/storenode", "/var/lib/hq", REPLICA, "/var/lib/hq/hq.db", "/etc/storenode/storenode.toml"):
        assert "denied" in site.fails("sh", "-c", f"ls {path}/ || cat {path}", user="stranger").lower()
    assert "Permission denied" in site.fails("storenode", "price", "4011", user="stranger")
    assert site.code("storenode", "status", user="stranger") == 3
    assert site.code("storenode", "--db", REPLICA, "status", user="stranger") == 3
    assert site.fails("storenode", "emit", "sale.total", "1", user="stranger")
    assert site.fails("hq", "status", user="stranger")
    assert site.fails("hq", "publish", "price", "sku=1", "amount=1", "currency=EUR", user="till")


def test_a_till_emits_with_the_daemon_up_and_down(site: Site) -> None:
    site.run("storenode", "emit", "till.test", '"up"', user="till")
    site.run("systemctl", "stop", "storenode")
    try:
        site.run("storenode", "emit", "till.test", '"down"', user="till")
    finally:
        site.run("systemctl", "start", "storenode")
    until(lambda: [e["data"] for e in site.inbox() if e["type"] == "till.test"] == ["up", "down"], "HQ has both")


def test_an_outbox_with_a_directory_of_its_own_takes_entries_with_no_file_there_but_its_own(site: Site) -> None:
    """What docs/operating/outbox.md offers to tills that must emit without a daemon; made by the sandboxed daemon."""
    place = "/var/lib/storenode/outbox"
    with site.drop_in("storenode", f"Environment=STORENODE_OUTBOX={place}/outbox.db"):
        until(lambda: site.code("test", "-e", f"{place}/outbox.db") == 0, "the outbox is made")
        assert site.run("stat", "--format=%A %U:%G", place).strip() == "drwxrws--- storenode:storenode"
        site.run("systemctl", "stop", "storenode")
        site.path(f"{place}/outbox.db-wal").unlink(missing_ok=True)
        site.path(f"{place}/outbox.db-shm").unlink(missing_ok=True)
        emit = ("env", f"STORENODE_OUTBOX={place}/outbox.db", "storenode", "emit", "own.directory", "1")
        site.run(*emit, user="till")
        site.run("systemctl", "start", "storenode")
        until(lambda: [e for e in site.inbox() if e["type"] == "own.directory"] != [], "HQ has it")


def test_members_of_hqs_group_publish_and_lock_nobody_out(site: Site) -> None:
    """The master was made without writing for its group, so only root and hq could publish."""
    site.run("hq", "publish", "price", "sku=6000", "amount=1.00", "currency=EUR", "--wait", user="desk")
    site.run("systemctl", "stop", "hq")
    try:
        site.run("hq", "publish", "price", "sku=6000", "amount=2.00", "currency=EUR", user="desk")
        site.run("hq", "status", "--json", user="desk")
        site.run("hq", "inbox", "--json", user="desk")
    finally:
        site.run("systemctl", "start", "hq")
    until(lambda: site.price_minor("6000") == 200, "hq run publishes what the desk left")


def test_the_sandbox_lets_the_programs_work_and_nothing_else(site: Site) -> None:
    text = (tree.REPOSITORY / "deploy/storenode.service").read_text(encoding="utf-8")
    service = text.partition("[Service]")[2].partition("[Install]")[0]
    options = [
        f"--property={line}"
        for line in re.findall(r"^(\w+=.*)$", service, re.MULTILINE)
        if not line.startswith(NOT_THE_SANDBOX)
    ]
    site.path("/srv/probe.py").write_text(PROBE)
    said = site.run("systemd-run", "--quiet", "--wait", "--pipe", *options, PYTHON, "/srv/probe.py")
    assert said.split() == ["worked", "refused", "refused", "refused", "refused", "refused", "refused"]


NOT_THE_SANDBOX = ("Type=", "ExecStart=", "Restart=", "RestartSec=", "WatchdogSec=", "TimeoutStopSec=")
PROBE = """
import ctypes, mmap, os, socket, sqlite3
import zstandard

assert zstandard.decompress(zstandard.compress(b"x" * 1000)) == b"x" * 1000
assert ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7)() == 7
sqlite3.connect("/var/lib/storenode/probe.db").execute("CREATE TABLE t(x)")
os.unlink("/var/lib/storenode/probe.db")
socket.socket(socket.AF_INET6).close()
assert open("/proc/sys/kernel/random/boot_id").read()
print("worked")

def refused(what):
    try:
        what()
    except (OSError, ValueError):
        print("refused")
    else:
        print("allowed")

refused(lambda: open("/opt/storenode/x", "w"))
refused(lambda: os.listdir("/root"))
refused(lambda: os.listdir("/home/till"))
refused(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
refused(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC))
refused(lambda: os.stat("/proc/1/stat"))
"""
