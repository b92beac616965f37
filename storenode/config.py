"""The store's settings: a TOML file, then the environment, then options; the one reader of the environment."""

from __future__ import annotations

import difflib
import os
import pwd
import re
import socket
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from storelink.contract.contexts import CONTEXTS, Context
from storelink.contract.declared import parse
from storelink.contract.errors import ContractViolation
from storelink.contract.streams import SCOPE_ALL, Stream, checked_name, checked_root
from storelink.transport.errors import LinkError
from storelink.transport.url import BrokerUrl
from storenode import setting_forms
from storenode.core import api_address
from storenode.core.job_times import Rhythm, rhythms
from storenode.core.scopes import followed_streams, scope_ranks
from storenode.errors import BadSettings

ENVIRONMENT_PREFIX = "STORENODE_"
OUTBOX_MAX_BYTES = 268_435_456
CLOCK_HOLD_DAYS = 30
HOOK_KEEPS = ("LANG", "LANGUAGE", "TZ")
HOOK_PATH = "/usr/local/bin:/usr/bin:/bin"
"""Where a hook's command is looked for when the daemon's PATH has no absolute directory."""


def _host_name() -> str:
    """This machine's name, bent into what a store id may be."""
    name = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().partition(".")[0].lower()).strip("-")[:32].strip("-")
    return name or "store"


class Declarations(NamedTuple):
    """The file of what the chain declares itself, and what it says: settings differ where that does."""

    path: Path
    contexts: tuple[Context, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `storenode` can be told from outside, checked.

    `scopes`: `scope` for every context, or `context/scope` for one; from the least to the most specific.
    A scope of a context that is not declared is passed over. `contexts`: the file of what the chain declares itself.
    `max_kbps`: what a catch-up may take of the line, in thousands of bits a second; 0 for all of it.
    `clock_hold_days`: a clock further past the last time that HQ vouched for is not believed; 0: any is.
    `api`: where the daemon's local HTTP API listens; None: the daemon starts none. `api_hosts`: further names by which
    it may be called, and public addresses at which it may listen.
    `on_price_change`: a command line or an http(s) address; see storenode/jobs/hook.py.
    `backup_dir`: None for no nightly backups; `backup_hour` is UTC.
    """

    db: Path = Path("replica.db")
    store_id: str = field(default_factory=_host_name)
    broker: BrokerUrl = field(default_factory=lambda: BrokerUrl.parse("mqtt://localhost:1883"))
    root: str = "storenode"
    scopes: tuple[str, ...] = (SCOPE_ALL,)
    max_kbps: int = 0
    outbox: Path | None = None
    outbox_max_bytes: int = OUTBOX_MAX_BYTES
    api: api_address.Address | None = None
    api_hosts: tuple[str, ...] = ()
    contexts: Declarations | None = None
    clock_hold_days: int = CLOCK_HOLD_DAYS
    on_price_change: str | None = None
    price_look_s: int = 60
    tell_activations: bool = False
    backup_dir: Path | None = None
    backup_keep: int = 7
    backup_hour: int = 3

    @property
    def outbox_path(self) -> Path:
        """The outbox: as set, or else beside the replica: `outbox.db`, or `NAME.outbox.db` beside `NAME.db`."""
        if self.outbox is not None:
            return self.outbox
        name = "outbox.db" if self.db.stem == "replica" else f"{self.db.stem}.outbox.db"
        return self.db.with_name(name)

    def streams(self) -> tuple[Stream, ...]:
        """The streams that this store follows."""
        return followed_streams(self.scopes)

    @property
    def tells_prices(self) -> bool:
        """Whether anybody is told of prices that change."""
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
    Read the settings; the contexts that they declare are known to the process from then on.

    Args:
        environ: the process's environment; `STORENODE_CONFIG` names the file unless `config` does.
        options: what the command line says; None stands for not said.

    Raises:
        BadSettings: with every mistake found.
    """
    found = examine(environ, config, options)
    if found.mistakes:
        raise BadSettings("; ".join(found.mistakes), hint="settings: " + ", ".join(_PARSERS))
    return found.settings


def examine(
    environ: Mapping[str, str], config: Path | None = None, options: Mapping[str, str | None] | None = None
) -> Examined:
    """Read the settings as `load` does, and raise nothing: what is wrong is told, and the default stands in for it."""
    mistakes: list[str] = []
    given: dict[str, tuple[str, Any]] = {}
    path = config or (Path(environ["STORENODE_CONFIG"]) if environ.get("STORENODE_CONFIG") else None)
    if path is not None:
        given |= {name: (f"{name} in {path}", value) for name, value in _read(path, mistakes).items()}
    for name in _PARSERS:
        variable = ENVIRONMENT_PREFIX + name.upper()
        if variable in environ:
            given[name] = (variable, environ[variable])
    given |= {n: (f"--{n.replace('_', '-')}", v) for n, v in (options or {}).items() if v is not None}
    found: dict[str, Any] = {}
    broken = set()
    for name, (source, value) in sorted(given.items(), key=lambda item: item[0] != "contexts"):  # scopes may name them
        try:
            found[name] = _PARSERS[name](value)
        except (ContractViolation, ValueError, LinkError) as error:
            mistakes.append(f"{source}: {error.detail if isinstance(error, ContractViolation) else error}")
            broken.add(name)
    if refused := found.get("api") and api_address.refusal(found["api"], found.get("api_hosts", ())):
        mistakes.append(f"{given['api'][0]}: {refused}")
        broken.add("api")
        del found["api"]
    return Examined(Settings(**found), tuple(mistakes), frozenset(broken), path)


def api_environment(settings: Settings) -> dict[str, str]:
    """The environment of the daemon's API process: the settings that it needs, and nothing of the broker's password."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((ENVIRONMENT_PREFIX, "HQ_", "NOTIFY_", "WATCHDOG_"))
    }
    told = {
        "db": str(settings.db),
        "outbox": str(settings.outbox_path),
        "store_id": settings.store_id,
        "outbox_max_bytes": str(settings.outbox_max_bytes),
        "api": str(settings.api or ""),
        "api_hosts": ",".join(settings.api_hosts),
    }
    if settings.contexts is not None:
        told["contexts"] = str(settings.contexts.path)
    return kept | {ENVIRONMENT_PREFIX + name.upper(): value for name, value in told.items()}


def hook_environment() -> dict[str, str]:
    """The environment of a hook: where programs are, language and time zone, who runs it; see docs/operating.md.

    Nothing else that the daemon was given, such as the broker's password.
    """
    kept = {name: value for name, value in os.environ.items() if name in HOOK_KEEPS or name.startswith("LC_")}
    kept["PATH"] = ":".join(p for p in os.environ.get("PATH", "").split(":") if p.startswith("/")) or HOOK_PATH
    with suppress(KeyError):
        account = pwd.getpwuid(os.geteuid())
        kept |= {"USER": account.pw_name, "LOGNAME": account.pw_name, "HOME": account.pw_dir}
    return kept


def _read(path: Path, mistakes: list[str]) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        mistakes.append(f"{path}: {getattr(error, 'strerror', None) or error}")
        return {}
    for name in sorted(table.keys() - _PARSERS.keys()):
        close = difflib.get_close_matches(name, _PARSERS, n=1)
        mistakes.append(f"{path}: unknown setting {name!r}" + (f", did you mean {close[0]!r}?" if close else ""))
    return {name: value for name, value in table.items() if name in _PARSERS}


def _contexts(value: Any) -> Declarations:
    """Read the declarations and put them into the registry."""
    path = Path(setting_forms.text(value))
    try:
        found = Declarations(path, parse(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except ContractViolation as error:
        raise ValueError(f"{path}: {error.detail}") from error
    with suppress(ContractViolation):  # read again, and changed: the daemon becomes another process, which knows them
        CONTEXTS.declare(found.contexts)
    return found


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "db": lambda value: Path(setting_forms.text(value)),
    "store_id": lambda value: checked_name(setting_forms.text(value), "store id"),
    "broker": lambda value: BrokerUrl.parse(setting_forms.text(value)),
    "root": lambda value: checked_root(setting_forms.text(value)),
    "scopes": setting_forms.scopes,
    "max_kbps": setting_forms.kbps,
    "outbox": lambda value: Path(setting_forms.text(value)),
    "outbox_max_bytes": setting_forms.outbox_bytes,
    "api": setting_forms.api,
    "api_hosts": setting_forms.hosts,
    "contexts": _contexts,
    "clock_hold_days": setting_forms.days,
    "on_price_change": lambda value: setting_forms.hook(setting_forms.text(value)),
    "price_look_s": lambda value: setting_forms.whole(value, 1, 3_600),
    "tell_activations": setting_forms.yes,
    "backup_dir": lambda value: Path(setting_forms.text(value)),
    "backup_keep": lambda value: setting_forms.whole(value, 1, 1_000),
    "backup_hour": lambda value: setting_forms.whole(value, 0, 23),
}
