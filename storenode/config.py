"""The store's settings: a TOML file, then the environment, then options; the one reader of the environment."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from storelink.contract.contexts import BUILT_IN, Contexts
from storelink.contract.errors import ContractViolation
from storelink.contract.limits import SEQ_MAX
from storelink.contract.streams import SCOPE_ALL, Stream, checked_name, checked_root
from storelink.host.settings import Declarations, flag, listed, names_of, path, read_settings, setting, text, whole
from storelink.transport.url import DEFAULT_BROKER, BrokerUrl, broker_setting
from storenode.core import api_address
from storenode.core.job_times import Rhythm, rhythms
from storenode.core.scopes import checked_scopes, followed_streams, scope_ranks
from storenode.errors import BadSettings

ENVIRONMENT_PREFIX = "STORENODE_"
OUTBOX_MAX_BYTES = 268_435_456
OUTBOX_BYTES_MIN = 65_536
KBPS_MIN = 32
"""Below this a catch-up would give up on each segment."""

CLOCK_HOLD_DAYS = 30
HOOK_KEEPS = ("LANG", "LANGUAGE", "TZ")
HOOK_PATH = "/usr/local/bin:/usr/bin:/bin"
"""Where a hook's command is looked for when the daemon's PATH has no absolute directory."""


def _host_name() -> str:
    """This machine's name, bent into what a store id may be."""
    name = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().partition(".")[0].lower()).strip("-")[:32].strip("-")
    return name or "store"


def _api(value: Any) -> api_address.Address | None:
    """Read an address; empty: none."""
    return None if value == "" else api_address.parsed(text(value))


def _hosts(value: Any) -> tuple[str, ...]:
    """Read `till.example,192.0.2.7`."""
    return tuple(api_address.checked_host(host) for host in listed("till.example,192.0.2.7")(value) if host)


def _kbps(value: Any) -> int:
    found = whole(0, 999_999_999, form := f"0 (no cap) or a whole number from {KBPS_MIN} kbit/s")(value)
    if 0 < found < KBPS_MIN:
        raise ValueError(f"{value!r} must be {form}")
    return found


def _hook(value: Any) -> str | None:
    """Read a command line or an address."""
    given = text(value)
    if given.startswith(("http://", "https://")):
        parts = urlsplit(given)
        _ = parts.port  # raises ValueError for what is no port
        if not parts.hostname or parts.username is not None:
            raise ValueError("must be an address like http://labels.local:8080/prices, without user and password")
    elif "://" in given or not shlex.split(given):
        raise ValueError("must be a command line, or an address that begins with http:// or https://")
    elif "/" in (program := shlex.split(given)[0]) and not program.startswith("/"):
        raise ValueError(f"{program!r} must be an absolute path, or a name to be found by PATH")
    return given


def outbox_beside(db: Path) -> Path:
    """The outbox of a replica, where no other is set: `outbox.db`, or `NAME.outbox.db` beside `NAME.db`."""
    return db.with_name("outbox.db" if db.stem == "replica" else f"{db.stem}.outbox.db")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `storenode` can be told from outside, checked."""

    db: Path = setting(Path("replica.db"), path, "The replica, an SQLite file.")
    store_id: str = setting(
        _host_name, lambda value: checked_name(text(value), "store id"), "This store's name; else the machine's."
    )
    broker: BrokerUrl = setting(
        DEFAULT_BROKER, broker_setting, "The broker: mqtt:// or mqtts://user:password@host:port."
    )
    root: str = setting("storenode", lambda value: checked_root(text(value)), "First level(s) of every topic.")
    scopes: tuple[str, ...] = setting(
        (SCOPE_ALL,),
        listed("all,zone-west,price/store-042"),
        "`scope` for every context, or `context/scope` for one; from the least to the most specific. A scope of a"
        " context that is not declared is passed over.",
    )
    max_kbps: int = setting(
        0, _kbps, "What a catch-up may take of the line, in thousands of bits a second; 0 for all of it."
    )
    outbox: Path | None = setting(None, path, "The outbox, an SQLite file; else beside the replica.")
    outbox_max_bytes: int = setting(
        OUTBOX_MAX_BYTES,
        whole(OUTBOX_BYTES_MIN, SEQ_MAX, f"a whole number of bytes, at least {OUTBOX_BYTES_MIN}"),
        "How large the outbox may become.",
    )
    api: api_address.Address | None = setting(
        None, _api, "Where the daemon's local HTTP API listens; without it, the daemon starts none."
    )
    api_hosts: tuple[str, ...] = setting(
        (), _hosts, "Further names by which the API may be called, and public addresses at which it may listen."
    )
    contexts: Declarations | None = setting(
        None, Declarations.read, "The file of contexts that the chain declares itself."
    )
    clock_hold_days: int = setting(
        CLOCK_HOLD_DAYS,
        whole(0, 9_999, "a whole number of days, 0 to 9999 (0: a clock is always believed)"),
        "A clock further past the last time that HQ vouched for is not believed; 0: any is.",
    )
    on_price_change: str | None = setting(
        None, _hook, "A command line or an http(s) address; see storenode/jobs/hook.py."
    )
    price_look_s: int = setting(60, whole(1, 3_600), "How often prices are looked at for changes.")
    tell_activations: bool = setting(False, flag, "Whether HQ is told of prices that change here.")
    backup_dir: Path | None = setting(None, path, "Where nightly backups go; without it, there are none.")
    backup_keep: int = setting(7, whole(1, 1_000), "How many backups are kept.")
    backup_hour: int = setting(3, whole(0, 23), "The hour of the nightly backup, UTC.")

    @property
    def outbox_path(self) -> Path:
        """The outbox: as set, or else beside the replica."""
        return outbox_beside(self.db) if self.outbox is None else self.outbox

    @property
    def registry(self) -> Contexts:
        """All contexts: the built-in ones and those that the chain declares."""
        return BUILT_IN if self.contexts is None else BUILT_IN.with_declared(self.contexts.contexts)

    def streams(self) -> tuple[Stream, ...]:
        """The streams that this store follows."""
        return followed_streams(self.scopes, self.registry)

    @property
    def tells_prices(self) -> bool:
        """Whether anybody is notified of prices that change."""
        return self.on_price_change is not None or self.tell_activations

    @property
    def rhythms(self) -> Mapping[str, Rhythm]:
        """What this store does by the clock."""
        hour = None if self.backup_dir is None else self.backup_hour
        return rhythms(self.store_id, look_s=self.price_look_s if self.tells_prices else None, backup_hour=hour)

    @property
    def scope_rank(self) -> Mapping[str, int]:
        """Each scope's rank; the highest wins in the read model."""
        return scope_ranks(self.scopes)


@dataclass(frozen=True, slots=True)
class Examined:
    """Settings as far as they can be read. `broken`: those whose default stands in; `path`: the file read, if any."""

    settings: Settings
    mistakes: tuple[str, ...]
    broken: frozenset[str]
    path: Path | None


def load(
    environ: Mapping[str, str], config: Path | None = None, options: Mapping[str, str | None] | None = None
) -> Settings:
    """
    Read the settings.

    Args:
        environ: the process's environment; `STORENODE_CONFIG` names the file unless `config` does.
        options: what the command line says; None stands for not said.

    Raises:
        BadSettings: with every mistake found.
    """
    found = examine(environ, config, options)
    if found.mistakes:
        raise BadSettings("; ".join(found.mistakes), hint="settings: " + ", ".join(names_of(Settings)))
    return found.settings


def examine(
    environ: Mapping[str, str], config: Path | None = None, options: Mapping[str, str | None] | None = None
) -> Examined:
    """Read the settings as `load` does, and raise nothing: what is wrong is reported, and the default is used."""
    found = read_settings(Settings, ENVIRONMENT_PREFIX, environ, config, options)
    if "scopes" in found.values:
        try:
            checked_scopes(found.values["scopes"], Settings(contexts=found.values.get("contexts")).registry)
        except ContractViolation as error:
            found.refuse("scopes", error.detail)
    api = found.values.get("api")
    if api is not None and (refused := api_address.refusal(api, found.values.get("api_hosts", ()))):
        found.refuse("api", refused)
    return Examined(Settings(**found.values), tuple(found.mistakes), frozenset(found.broken), found.path)


def api_environment(settings: Settings) -> dict[str, str]:
    """The environment of the daemon's API process: the settings that it needs, and nothing of the broker's password."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((ENVIRONMENT_PREFIX, "HQ_", "NOTIFY_", "WATCHDOG_"))
    }
    given = {
        "db": str(settings.db),
        "outbox": str(settings.outbox_path),
        "store_id": settings.store_id,
        "outbox_max_bytes": str(settings.outbox_max_bytes),
        "api": str(settings.api or ""),
        "api_hosts": ",".join(settings.api_hosts),
    }
    if settings.contexts is not None:
        given["contexts"] = str(settings.contexts.path)
    return kept | {ENVIRONMENT_PREFIX + name.upper(): value for name, value in given.items()}


def hook_environment() -> dict[str, str]:
    """The environment of a hook: where programs are, language and time zone, who runs it; docs/operating/prices.md.

    Nothing else that the daemon was given, such as the broker's password.
    """
    kept = {name: value for name, value in os.environ.items() if name in HOOK_KEEPS or name.startswith("LC_")}
    kept["PATH"] = ":".join(p for p in os.environ.get("PATH", "").split(":") if p.startswith("/")) or HOOK_PATH
    with suppress(KeyError):
        account = pwd.getpwuid(os.geteuid())
        kept |= {"USER": account.pw_name, "LOGNAME": account.pw_name, "HOME": account.pw_dir}
    return kept
