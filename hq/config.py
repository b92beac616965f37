"""HQ's settings: a TOML file, then the environment, then options; the one reader of the environment."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hq.errors import BadSettings
from storelink.contract.contexts import BUILT_IN, Contexts
from storelink.contract.errors import ContractViolation
from storelink.contract.money import EXPONENTS
from storelink.contract.streams import checked_root
from storelink.host.settings import Declarations
from storelink.transport.errors import LinkError
from storelink.transport.url import BrokerUrl

ENVIRONMENT_PREFIX = "HQ_"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `hq` can be told from outside, checked. `contexts`: the file of what the chain declares itself."""

    db: Path = Path("hq.db")
    broker: BrokerUrl = field(default_factory=lambda: BrokerUrl.parse("mqtt://localhost:1883"))
    root: str = "storenode"
    heartbeat_s: float = 5.0
    head_interval_ms: int = 500
    segment_grace_s: int = 600
    tombstone_days: float = 90.0
    inbox_days: float = 0.0
    contexts: Declarations | None = None

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
        options: what the command line says; None stands for not said.

    Raises:
        BadSettings: with every mistake found.
    """
    mistakes: list[str] = []
    given: dict[str, tuple[str, Any]] = {}
    path = config or (Path(environ["HQ_CONFIG"]) if environ.get("HQ_CONFIG") else None)
    if path is not None:
        given |= {name: (f"{name} in {path}", value) for name, value in _read(path, mistakes).items()}
    for name in _PARSERS:
        variable = ENVIRONMENT_PREFIX + name.upper()
        if variable in environ:
            given[name] = (variable, environ[variable])
    given |= {n: (f"--{n.replace('_', '-')}", v) for n, v in (options or {}).items() if v is not None}
    found: dict[str, Any] = {}
    for name, (source, value) in given.items():
        try:
            found[name] = _PARSERS[name](value)
        except (ValueError, TypeError, LinkError, ContractViolation) as error:
            mistakes.append(f"{source}: {error}")
    if mistakes:
        raise BadSettings("; ".join(mistakes), hint="settings: " + ", ".join(_PARSERS))
    return Settings(**found)


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


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a text that is not empty")
    return value


def _contexts(value: Any) -> Declarations:
    """Read the declarations; the currencies that they name must be known, for amounts are typed as decimal numbers."""
    found = Declarations.read(Path(_text(value)))
    for context in found.contexts:
        for column in context.values:
            if column.currency and column.currency not in EXPONENTS:
                raise ValueError(f"{found.path}: {context.name}, column {column.name}: no currency {column.currency}")
    return found


def _number(low: float, high: float, kind: type[int | float]) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        try:
            if isinstance(value, bool) or (isinstance(value, float) and kind is int):
                raise ValueError
            number = kind(value)
        except (ValueError, TypeError):
            raise ValueError(f"{value!r} must be {'a whole' if kind is int else 'a'} number") from None
        if not low <= number <= high:
            raise ValueError(f"{value!r} must be between {low:g} and {high:g}")
        return number

    return parse


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "db": lambda value: Path(_text(value)),
    "broker": lambda value: BrokerUrl.parse(_text(value)),
    "root": lambda value: checked_root(_text(value)),
    "heartbeat_s": _number(0.1, 3600, float),
    "head_interval_ms": _number(10, 60_000, int),
    "segment_grace_s": _number(1, 604_800, int),
    "tombstone_days": _number(0, 36_500, float),
    "inbox_days": _number(0, 36_500, float),
    "contexts": _contexts,
}

if set(_PARSERS) != {f.name for f in fields(Settings)}:
    raise AssertionError("every setting needs a parser")
