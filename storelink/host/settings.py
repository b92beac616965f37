"""Settings as both programs read them: a TOML file, then the environment, then options; the last one wins.

A program declares its settings as the fields of a frozen dataclass, each made by `setting`: its default, how a value is
read, and what it means. `read_settings` reports all mistakes at once, each with its key and the expected form.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from storelink.contract.contexts import Context
from storelink.contract.declared import parse
from storelink.contract.errors import ContractViolation

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """
    What the three sources say, as far as it can be read.

    Attributes:
        values: the checked values by name; a setting that nobody names, or that cannot be read, is not among them.
        mistakes: what is wrong, each with its source.
        broken: the names of settings that cannot be read.
        sources: where each value comes from: `root in FILE`, `HQ_ROOT`, `--root`.
        path: the file that was read, if any.
    """

    values: dict[str, Any]
    mistakes: list[str]
    broken: set[str]
    sources: dict[str, str]
    path: Path | None

    def refuse(self, name: str, problem: str) -> None:
        """Take a value back that does not go with the others."""
        self.mistakes.append(f"{self.sources[name]}: {problem}")
        self.broken.add(name)
        del self.values[name]


def setting(default: T | Callable[[], T], read: Callable[[Any], T], doc: str) -> T:
    """
    Declare one setting, as a field of a dataclass.

    Args:
        default: the value, or a function without parameters that makes it.
        read: from a text or a TOML value to a checked one; ValueError or ContractViolation says the expected form.
        doc: what it means, for people.
    """
    metadata = {"read": read, "doc": doc}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def names_of(declared: type[Any]) -> list[str]:
    """The names of the settings that a dataclass declares, in their order."""
    return [each.name for each in fields(declared)]


def read_settings(
    declared: type[Any],
    prefix: str,
    environ: Mapping[str, str],
    config: Path | None,
    options: Mapping[str, str | None] | None,
) -> Found:
    """
    Read the settings that a dataclass declares.

    Args:
        prefix: what their names in the environment begin with; `{prefix}CONFIG` names the file unless `config` does.
        options: what the command line says; None stands for not said.
    """
    readers: dict[str, Callable[[Any], Any]] = {each.name: each.metadata["read"] for each in fields(declared)}
    path = config or (Path(environ[f"{prefix}CONFIG"]) if environ.get(f"{prefix}CONFIG") else None)
    found = Found({}, [], set(), {}, path)
    given: dict[str, tuple[str, Any]] = {}
    if path is not None:
        table = _table(path, found.mistakes)
        for name in sorted(table.keys() - readers.keys()):
            close = difflib.get_close_matches(name, readers, n=1)
            meant = f", did you mean {close[0]!r}?" if close else ""
            found.mistakes.append(f"{path}: unknown setting {name!r}{meant}")
        given |= {name: (f"{name} in {path}", value) for name, value in table.items() if name in readers}
    for name in readers:
        variable = prefix + name.upper()
        if variable in environ:
            given[name] = (variable, environ[variable])
    given |= {n: (f"--{n.replace('_', '-')}", v) for n, v in (options or {}).items() if v is not None}
    for name, (source, value) in given.items():
        found.sources[name] = source
        try:
            found.values[name] = readers[name](value)
        except ContractViolation as error:
            found.mistakes.append(f"{source}: {error.detail}")
            found.broken.add(name)
        except ValueError as error:
            found.mistakes.append(f"{source}: {error}")
            found.broken.add(name)
    return found


def _table(path: Path, mistakes: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        mistakes.append(f"{path}: {getattr(error, 'strerror', None) or error}")
        return {}


def text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a text that is not empty")
    return value


def path(value: Any) -> Path:
    return Path(text(value))


def flag(value: Any) -> bool:
    found = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(str(value).lower())
    if found is None:
        raise ValueError(f"{value!r} must be true or false")
    return found


def whole(least: int, most: int, form: str = "") -> Callable[[Any], int]:
    """Read a whole number; `form`: the expected form, where more is to be said than the bounds."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,18}", str(value)) or not least <= int(value) <= most:
            raise ValueError(f"{value!r} must be {form or f'a whole number from {least} to {most}'}")
        return int(value)

    return read


def number(least: float, most: float) -> Callable[[Any], float]:
    """Read a number that may have a fraction."""

    def read(value: Any) -> float:
        try:
            if isinstance(value, bool):
                raise ValueError
            found = float(value)
        except (ValueError, TypeError):
            raise ValueError(f"{value!r} must be a number from {least:g} to {most:g}") from None
        if not least <= found <= most:
            raise ValueError(f"{value!r} must be a number from {least:g} to {most:g}")
        return found

    return read


def listed(example: str) -> Callable[[Any], tuple[str, ...]]:
    """Read texts with commas between them; TOML may also list them."""

    def read(value: Any) -> tuple[str, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            raise ValueError(f"must be a list, as in {example!r}")
        return tuple(part.strip() for part in parts)

    return read


@dataclass(frozen=True, slots=True)
class Declarations:
    """The file of contexts that the chain declares itself, and what it says: settings differ where that does."""

    path: Path
    contexts: tuple[Context, ...]

    @classmethod
    def read(cls, value: Any) -> Declarations:
        """Read the file that a setting names. Raises ValueError that lists every mistake in it."""
        file = path(value)
        try:
            return cls(file, parse(file.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
        except ContractViolation as error:
            raise ValueError(f"{file}: {error.detail}") from error
