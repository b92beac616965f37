"""HQ's settings: a TOML file, then the environment, then options; the one reader of the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hq.errors import BadSettings
from storelink.contract.contexts import BUILT_IN, Contexts
from storelink.contract.money import EXPONENTS
from storelink.contract.streams import checked_root
from storelink.host.settings import Declarations, names_of, number, path, read_settings, setting, text, whole
from storelink.transport.url import DEFAULT_BROKER, BrokerUrl, broker_setting

ENVIRONMENT_PREFIX = "HQ_"


def _contexts(value: Any) -> Declarations | None:
    """Read the declarations. They name only currencies that we know, because people type amounts as decimal numbers."""
    found = Declarations.read(value)
    for context in found.contexts:
        for column in context.values:
            if column.currency and column.currency not in EXPONENTS:
                raise ValueError(f"{found.path}: {context.name}, column {column.name}: no currency {column.currency}")
    return found


def contexts_in(file: Path) -> Contexts:
    """All contexts: the built-in ones and those that a TOML file declares. Raises BadSettings with every mistake."""
    try:
        found = _contexts(str(file))
    except ValueError as error:
        raise BadSettings(f"contexts: {error}", hint="see docs/contexts.md") from error
    return BUILT_IN if found is None else BUILT_IN.with_declared(found.contexts)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of `hq`, checked."""

    db: Path = setting(Path("hq.db"), path, "The master, an SQLite file.")
    broker: BrokerUrl = setting(
        DEFAULT_BROKER, broker_setting, "The broker: mqtt:// or mqtts://user:password@host:port."
    )
    root: str = setting("storenode", lambda value: checked_root(text(value)), "First level(s) of every topic.")
    heartbeat_s: float = setting(5.0, number(0.1, 3600), "How often each stream is published when nothing changes.")
    head_interval_ms: int = setting(500, whole(10, 60_000), "The least time between two heads of a stream.")
    segment_grace_s: int = setting(600, whole(1, 604_800), "How long the broker keeps a segment that was replaced.")
    tombstone_days: float = setting(90.0, number(0, 36_500), "How long deletions are remembered.")
    inbox_days: float = setting(0.0, number(0, 36_500), "How long entries from stores are kept; 0: for ever.")
    contexts: Declarations | None = setting(None, _contexts, "The file of contexts that the chain declares itself.")

    @property
    def registry(self) -> Contexts:
        """All contexts: the built-in ones and those that the chain declares."""
        return BUILT_IN if self.contexts is None else BUILT_IN.with_declared(self.contexts.contexts)


def load(
    environ: Mapping[str, str], config: Path | None = None, options: Mapping[str, str | None] | None = None
) -> Settings:
    """
    Read the settings.

    Args:
        environ: the process's environment; `HQ_CONFIG` names the file unless `config` does.
        options: what the command line says; None where it says nothing.

    Raises:
        BadSettings: with every mistake found.
    """
    found = read_settings(Settings, ENVIRONMENT_PREFIX, environ, config, options)
    if found.mistakes:
        raise BadSettings("; ".join(found.mistakes), hint="settings: " + ", ".join(names_of(Settings)))
    return Settings(**found.values)
