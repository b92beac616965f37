"""HQ, its broker and a store, installed by deploy/install.sh into one container, and what a person types there."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from testbed.process import until
from tests.system import tree
from tests.system.container import Container

SOURCE = "/root/release"
WHEELS = "/root/wheels"
STORE_ID = "store-042"
FEED = "sku,amount,currency\n4011,1.99,EUR\n4012,2.49,EUR\n4013,10.00,EUR\n"
UNITS = ("mosquitto", "hq", "storenode")


class Site:
    """As a context: from a bare Debian to a store that follows an HQ. `said`: the installer's words by role."""

    def __init__(self, directory: Path, log: Path) -> None:
        self.container = Container(directory / "root", log)
        self.said: dict[str, str] = {}

    def build(self) -> None:
        """Boot a copy of the cached Debian with a release and a wheelhouse in it. Raises NotToBeHad."""
        debian = tree.debian()
        wheels = tree.wheelhouse(debian)
        self.container.make_root(debian)
        tree.release(self.path(SOURCE))
        shutil.copytree(wheels, self.path(WHEELS))
        try:
            self.container.boot()
        except AssertionError as error:  # nothing of ours runs in it yet
            raise tree.NotToBeHad(f"Debian does not boot: {error}") from error

    def install(self) -> None:
        """HQ and a store, from nothing; then the people who use them."""
        self.said["hq"] = self.installer("hq")
        self.said["store"] = self.installer("store", "--store-id", STORE_ID, "--broker", "mqtt://localhost:1883")
        for name, group in (("till", "storenode"), ("desk", "hq"), ("stranger", "nogroup")):
            self.run("useradd", "--create-home", "--groups", group, name)
        self.path("/root/prices.csv").write_text(FEED)
        self.run("hq", "import", "price", "/root/prices.csv")

    def path(self, inside: str) -> Path:
        return self.container.host_path(inside)

    def run(self, *arguments: str, user: str | None = None, check: bool = True) -> str:
        """What the command printed."""
        return self.container.run(*arguments, user=user, check=check).stdout

    def fails(self, *arguments: str, user: str | None = None) -> str:
        """What a command that must fail complained of."""
        done = self.container.run(*arguments, user=user, check=False)
        assert done.returncode != 0, f"{arguments} as {user} succeeded: {done.stdout}"
        return done.stderr

    def code(self, *arguments: str, user: str | None = None) -> int:
        return self.container.run(*arguments, user=user, check=False).returncode

    def installer(self, *arguments: str, wheels: str = WHEELS) -> str:
        return self.run(f"{SOURCE}/deploy/install.sh", *arguments, "--wheelhouse", wheels)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("storenode", "status", "--json", check=False))
        return found

    def is_live(self) -> bool:
        return self.code("storenode", "status") == 0

    def wait_live(self) -> None:
        until(self.is_live, "the store is live")

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--property", name, "--value", unit).strip()

    def main_pid(self, unit: str) -> int:
        return int(self.show(unit, "MainPID"))

    def price_minor(self, sku: str, user: str | None = None) -> int:
        return int(json.loads(self.run("storenode", "price", sku, "--json", user=user))["amount_minor"])

    def log(self, unit: str) -> list[dict[str, Any]]:
        """What a daemon logged, of all its lives since this boot."""
        entries = self.run("journalctl", f"--unit={unit}", "--boot", "--output=json", "--no-pager").splitlines()
        records = [json.loads(entry) for entry in entries]
        return [json.loads(r["MESSAGE"]) for r in records if r.get("_TRANSPORT") == "stdout"]

    def inbox(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run("hq", "inbox", "--ndjson").splitlines()]

    @contextlib.contextmanager
    def drop_in(self, unit: str, lines: str) -> Iterator[None]:
        """Run the unit with some settings changed, as `systemctl edit` would."""
        place = self.path(f"/etc/systemd/system/{unit}.service.d")
        place.mkdir()
        (place / "test.conf").write_text(f"[Service]\n{lines}\n")
        try:
            self.restart(unit)
            yield
        finally:
            shutil.rmtree(place)
            self.restart(unit)

    def restart(self, unit: str) -> None:
        self.run("systemctl", "daemon-reload")
        self.run("systemctl", "restart", unit)

    @contextlib.contextmanager
    def black_hole(self) -> Iterator[None]:
        """The line to the broker swallows everything, without a word to either end."""
        self.container.run(
            "nft",
            "-f",
            "-",
            text=(
                "table inet hole {\n"
                "  chain out { type filter hook output priority 0; tcp dport 1883 drop; tcp sport 1883 drop; }\n"
                "}\n"
            ),
        )
        try:
            yield
        finally:
            self.run("nft", "delete", "table", "inet", "hole")
