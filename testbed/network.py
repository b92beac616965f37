"""Lines of their own for stores: network namespaces joined by veth pairs, and nftables rules that break them.

HQ and the broker live in a hub namespace, each store in one of its own; the machine's own network is not touched.
Faults are rules in the store's namespace: what it sends and what it receives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

RULES = {
    "cut": ("drop", "drop"),
    "cut up": ("", "drop"),
    "cut down": ("drop", ""),
    "reset": ("meta l4proto tcp reject with tcp reset", "meta l4proto tcp reject with tcp reset"),
    "loss": ("numgen random mod 100 < 20 drop", "numgen random mod 100 < 20 drop"),
    "black hole": ("meta length > 1200 drop", "meta length > 1200 drop"),
}
"""Of each fault: the rule for what comes in, and for what goes out."""


class NotPossible(Exception):
    """This machine lets us make no namespaces or no rules; the message says why."""


class Hub:
    """A namespace for HQ and the broker, and one for each store; `close` removes them all."""

    def __init__(self) -> None:
        for tool in ("ip", "nft"):
            if shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
                raise NotPossible(f"{tool} is not installed")
        if os.getuid() != 0:
            raise NotPossible("network namespaces need root")
        self._made: list[str] = []
        self._prefix = f"torture-{os.getpid()}"
        self.name = self._namespace("hub")

    def inside(self, name: str) -> list[str]:
        """What goes before a command line to run it in a namespace; the process stays the same one."""
        return ["ip", "netns", "exec", name]

    def join(self, number: int) -> tuple[str, str]:
        """Make a namespace joined to the hub; returns its name and the hub's address as it sees it."""
        name = self._namespace(f"store-{number}")
        near, far = f"th{os.getpid() % 100_000}-{number}", "veth0"
        run("ip", "-n", self.name, "link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        for space, device, host in ((self.name, near, 1), (name, far, 2)):
            run("ip", "-n", space, "addr", "add", f"10.99.{number}.{host}/30", "dev", device)
            run("ip", "-n", space, "link", "set", device, "up")
        self.heal(name)
        return name, f"10.99.{number}.1"

    def break_line(self, name: str, fault: str) -> None:
        incoming, outgoing = RULES[fault]
        self._rules(name, incoming, outgoing)

    def heal(self, name: str) -> None:
        self._rules(name, "", "")

    def close(self) -> None:
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def _rules(self, name: str, incoming: str, outgoing: str) -> None:
        """Replace all rules at once."""
        chains = "".join(
            f"chain {hook} {{ type filter hook {hook} priority 0; policy accept;\n{rule}\n}}\n"
            for hook, rule in (("input", incoming), ("output", outgoing))
        )
        text = f"flush ruleset\ntable inet torture {{\n{chains}}}\n"
        run("ip", "netns", "exec", name, "nft", "-f", "-", text=text)

    def _namespace(self, name: str) -> str:
        full = f"{self._prefix}-{name}"
        run("ip", "netns", "add", full)
        self._made.append(full)
        run("ip", "-n", full, "link", "set", "lo", "up")
        return full


def run(*command: str, text: str = "") -> None:
    done = subprocess.run(_found(command), input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotPossible(f"{' '.join(command)}: {done.stderr.strip()}")


def _found(command: Sequence[str]) -> list[str]:
    path = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    return [path or command[0], *command[1:]]
