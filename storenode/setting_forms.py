"""How settings are written: from a text or a TOML value to a checked one; ValueError says the expected form."""

from __future__ import annotations

import re
import shlex
from typing import Any
from urllib.parse import urlsplit

from storenode.core import api_address
from storenode.core.scopes import checked_scopes

KBPS_MIN = 32
"""Below this a catch-up would give up on each segment."""

OUTBOX_BYTES_MIN = 65_536


def text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a text that is not empty")
    return value


def scopes(value: Any) -> tuple[str, ...]:
    """Read `all,zone-west`; TOML may also list them."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ValueError("must list scopes, as in 'all,zone-west,price/store-042'")
    return checked_scopes([part.strip() for part in parts])


def kbps(value: Any) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,9}", str(value)) or 0 < int(value) < KBPS_MIN:
        raise ValueError(f"{value!r} must be 0 (no cap) or a whole number from {KBPS_MIN} kbit/s")
    return int(value)


def outbox_bytes(value: Any) -> int:
    try:
        if not isinstance(value, int | str) or isinstance(value, bool) or int(value) < OUTBOX_BYTES_MIN:
            raise ValueError
    except ValueError:
        raise ValueError(f"{value!r} must be a whole number of bytes, at least {OUTBOX_BYTES_MIN}") from None
    return int(value)


def api(value: Any) -> api_address.Address | None:
    """Read an address; empty: none."""
    return None if value == "" else api_address.parsed(text(value))


def hosts(value: Any) -> tuple[str, ...]:
    """Read `till.example,192.0.2.7`; TOML may also list them."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ValueError("must list hosts, as in 'till.example,192.0.2.7'")
    return tuple(api_address.checked_host(part.strip()) for part in parts if part.strip())


def days(value: Any) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,4}", str(value)):
        raise ValueError(f"{value!r} must be a whole number of days, 0 to 9999 (0: a clock is always believed)")
    return int(value)


def whole(value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,9}", str(value)) or not least <= int(value) <= most:
        raise ValueError(f"{value!r} must be a whole number from {least} to {most}")
    return int(value)


def hook(text: str) -> str:
    if text.startswith(("http://", "https://")):
        parts = urlsplit(text)
        _ = parts.port  # raises ValueError for what is no port
        if not parts.hostname or parts.username is not None:
            raise ValueError("must be an address like http://labels.local:8080/prices, without user and password")
    elif "://" in text or not shlex.split(text):
        raise ValueError("must be a command line, or an address that begins with http:// or https://")
    elif "/" in (program := shlex.split(text)[0]) and not program.startswith("/"):
        raise ValueError(f"{program!r} must be an absolute path, or a name to be found by PATH")
    return text


def yes(value: Any) -> bool:
    found = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(str(value).lower())
    if found is None:
        raise ValueError(f"{value!r} must be true or false")
    return found
