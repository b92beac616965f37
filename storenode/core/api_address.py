"""Where the local API listens, and which Host a request may name.

Loopback and unix sockets are open to nobody outside the machine. A browser on it still is a way in: a page that has its
own name point to 127.0.0.1 (DNS rebinding) reaches the API, but cannot hide that name from the Host header.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

UNIX_PREFIX = "unix:"
UNIX_PATH_BYTES_MAX = 107
"""`sun_path` of Linux, without the zero at its end."""

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address (`host`, `port`), or the path of a unix socket (`path` not empty)."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return UNIX_PREFIX + self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine reach it."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


DEFAULT = Address("127.0.0.1", 8417)


def parsed(text: str) -> Address:
    """Read `127.0.0.1:8417`, `[::1]:8417` or `unix:/run/storenode/api.sock`. Raises ValueError."""
    if text.startswith(UNIX_PREFIX):
        path = text.removeprefix(UNIX_PREFIX)
        if not path.startswith("/") or "\0" in path or len(path.encode()) > UNIX_PATH_BYTES_MAX:
            raise ValueError(f"{text!r} must name an absolute path of at most {UNIX_PATH_BYTES_MAX} bytes")
        return Address(path=path)
    host, _, port = text.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65_535:
        raise ValueError(f"{text!r} must be host:port, as in {DEFAULT}, or {UNIX_PREFIX}/path/of/socket")
    bracketed = host.startswith("[") and host.endswith("]")
    return Address(checked_host(host[1:-1] if bracketed else host), int(port))


def checked_host(text: str) -> str:
    """A host's name or its address without brackets, in lower case. Raises ValueError."""
    host = text.lower()
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        if not _HOST.fullmatch(host):
            raise ValueError(f"{text!r} is not a host's name or address") from None
    return host


def refusal(address: Address, named: Sequence[str]) -> str | None:
    """Why the API must not listen there; None when it may. `named`: the hosts that the settings allow."""
    if address.is_local or address.host in named:
        return None
    return (
        f"{address} can be reached from other machines, by anyone and without a password;"
        f" add {address.host!r} to api_hosts if that is meant"
    )


def hosts_allowed(address: Address, named: Sequence[str]) -> frozenset[str]:
    """The hosts that a request may name."""
    own = (address.host,) if address.host else ()
    return frozenset((*LOOPBACK_HOSTS, *own, *named))


@lru_cache(maxsize=64)
def host_of(header: str) -> str | None:
    """The host in a Host header, without its port, as `hosts_allowed` spells it; None where there is none."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::[0-9]{0,5})?", header)
    if found is None:
        return None
    try:
        return checked_host(found[1] or found[2])
    except ValueError:
        return None
