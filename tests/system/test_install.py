"""What the installer promises a chain's IT staff."""

from __future__ import annotations

import json
import re
import stat

from testbed.process import until
from tests.system import tree
from tests.system.site import STORE_ID, WHEELS, Site

NEVER_A_PROBLEM = {"error", "critical"}


def test_a_fresh_installation_is_live_and_sells(site: Site) -> None:
    assert [site.run("systemctl", "is-enabled", unit).strip() for unit in ("hq", "storenode")] == ["enabled"] * 2
    assert [site.price_minor(sku) for sku in ("4011", "4012", "4013")] == [199, 249, 1000]
    found = site.status()
    assert (found["store_id"], found["state"], found["pid"]) == (STORE_ID, "live", site.main_pid("storenode"))
    assert "storenode runs" in site.said["store"]
    assert "/var/lib/hq/hq.db: made" in site.said["hq"]


def test_the_doctors_find_nothing_wrong_with_what_the_installer_made(site: Site) -> None:
    for command in ("storenode", "hq"):
        found = site.container.run(command, "doctor", check=False)
        assert found.returncode == 0, found.stdout


def test_a_change_at_hq_reaches_the_store_and_an_entry_of_the_store_reaches_hq(site: Site) -> None:
    site.run("hq", "publish", "price", "sku=5000", "amount=3.20", "currency=EUR", "--wait")
    until(lambda: site.code("storenode", "price", "5000") == 0 and site.price_minor("5000") == 320, "it is there")
    site.run("storenode", "emit", "stock.count", '{"sku": "5000", "count": 7}')
    until(lambda: [e["data"] for e in site.inbox() if e["type"] == "stock.count"] != [], "HQ has it")


def test_the_journal_holds_json_lines_with_the_events_of_the_guide(site: Site) -> None:
    guide = (tree.REPOSITORY / "docs/operating/reference.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", guide))
    for unit, wanted in (("storenode", {"store.started", "catch_up.applied"}), ("hq", {"publisher.started"})):
        records = site.log(unit)
        events = {record["event"] for record in records}
        assert events >= wanted
        assert events <= listed
        assert [r for r in records if r["level"] in NEVER_A_PROBLEM] == []


def test_settings_and_data_are_closed_to_the_world(site: Site) -> None:
    def mode(path: str) -> str:
        return stat.filemode(site.path(path).stat().st_mode)

    assert mode("/etc/storenode/storenode.toml") == mode("/etc/storenode/hq.toml") == "-rw-r-----"
    assert mode("/var/lib/storenode") == "drwxr-x---"
    assert mode("/var/lib/hq") == "drwxrws---"
    assert mode("/var/lib/storenode/replica.db") == "-rw-r-----"
    assert {mode(f"/var/lib/hq/hq{part}.db") for part in ("", ".inbox", ".published")} == {"-rw-rw----"}


def test_installing_again_upgrades_and_keeps_settings_and_data(site: Site) -> None:
    """From the project's own wheel this time, as a machine without a package index gets it."""
    settings = site.path("/etc/storenode/storenode.toml")
    settings.write_text(settings.read_text() + "# ours\n")
    kept, pid, epoch = settings.read_text(), site.main_pid("storenode"), site.status()["streams"]["price/all"]["epoch"]
    tree.wheel(site.path("/root/release"), site.path(WHEELS))
    said = site.installer("store", "--store-id", "other", "--broker", "mqtt://elsewhere:1883")
    assert "storenode runs" in said
    assert settings.read_text() == kept
    assert site.main_pid("storenode") != pid
    assert site.status()["streams"]["price/all"]["epoch"] == epoch
    assert "was there already" not in site.installer("hq"), "the master is not made anew, nor asked for"
    site.wait_live()


def test_an_upgrade_that_cannot_have_its_packages_leaves_the_old_one_at_work(site: Site) -> None:
    pid = site.main_pid("storenode")
    site.path("/root/empty").mkdir()
    said = site.fails("/root/release/deploy/install.sh", "store", "--wheelhouse", "/root/empty")
    assert "error: pip could not install" in said
    assert "hint:" in said
    assert (site.main_pid("storenode"), site.is_live()) == (pid, True)


def test_bad_use_of_the_installer_is_one_clear_line(site: Site) -> None:
    script = "/root/release/deploy/install.sh"
    assert "--store-id" in site.fails(script)
    assert "error: unknown option --id" in site.fails(script, "store", "--id", "x")
    assert "error: --broker needs a value" in site.fails(script, "store", "--broker")
    assert "no quotes" in site.fails(script, "store", "--store-id", 'a"b')


def test_what_was_removed_leaves_its_data_and_comes_back_with_it(site: Site) -> None:
    """Installed anew without a store id it is not started: two stores with the example's would throw each other off."""
    site.run("/root/release/deploy/install.sh", "uninstall")
    assert site.code("systemctl", "is-active", "storenode") != 0
    gone = ("/opt/storenode", "/usr/local/bin/storenode", "/usr/local/bin/hq", "/usr/share/doc/storenode")
    assert not any(site.path(place).exists() for place in gone)
    settings = site.path("/etc/storenode/storenode.toml")
    kept = settings.read_text()
    settings.unlink()
    assert site.path("/var/lib/storenode/replica.db").exists()

    site.installer("hq")
    said = site.installer("store")
    assert "set store_id and broker" in said
    assert site.code("systemctl", "is-active", "storenode") != 0
    assert site.run("systemctl", "is-enabled", "storenode").strip() == "enabled"

    settings.write_text(kept)
    site.run("systemctl", "start", "storenode")
    assert site.price_minor("4011") == 199, "at once, from the replica that was left"
    site.wait_live()
    assert json.loads(site.run("hq", "status", "--json"))["running"]
