"""A power cut at night, and the line is down in the morning."""

from __future__ import annotations

from testbed.process import until
from tests.system.site import Site


def test_after_a_reboot_without_a_network_the_store_sells_and_later_heals_by_itself(site: Site) -> None:
    site.run("hq", "publish", "price", "sku=8000", "amount=8.00", "currency=EUR", "--wait")
    until(lambda: site.code("storenode", "price", "8000") == 0, "it is there")
    site.run("systemctl", "disable", "--quiet", "mosquitto")
    try:
        site.container.reboot()
        until(lambda: site.show("storenode", "ActiveState") == "active", "the store came back")
        assert site.show("hq", "ActiveState") == "active"
        assert site.show("mosquitto", "ActiveState") == "inactive"
        assert site.code("storenode", "status") == 1
        assert site.status()["state"] == "offline"
        assert site.price_minor("8000", user="till") == 800
        site.run("storenode", "emit", "after.reboot", "1", user="till")
    finally:
        site.run("systemctl", "enable", "--quiet", "mosquitto")
    site.run("systemctl", "start", "mosquitto")
    site.wait_live()
    until(lambda: [e for e in site.inbox() if e["type"] == "after.reboot"] != [], "HQ has what was emitted")
    assert [site.show(unit, "NRestarts") for unit in ("storenode", "hq")] == ["0", "0"]
