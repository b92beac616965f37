"""What the commands of `hq` read: options that several of them have, and the settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from hq import config
from hq.catalog import Catalog, stream_named
from hq.config import Settings
from hq.errors import BadField
from storelink.host.privileges import Carried, drop_to_owner_of

F = TypeVar("F", bound=Callable[..., Any])

_SETTINGS = "hq.settings"

context_argument = click.argument("context")
scope_option = click.option("--scope", default="all", show_default=True, help="Chain-wide, a zone or one store.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def configured(command: F) -> F:
    """Give a command the options that say where HQ is; `read_settings()` reads them."""
    for name, text in (
        ("root", "First level(s) of every topic."),
        ("broker", "Broker, as mqtt://host:1883 or mqtts://user:password@host:8883."),
        ("db", "The master, an SQLite file."),
        ("config", "TOML file with these settings; HQ_CONFIG."),
    ):
        command = click.option(f"--{name}", expose_value=False, callback=_remember, help=text)(command)
    return command


def read_settings(*carried: Carried) -> Settings:
    """
    The settings of the running command. Root becomes the owner of the master's directory, for good.

    Args:
        carried: what root named outside of that directory.
    """
    options: dict[str, str | None] = dict(click.get_current_context().meta.get(_SETTINGS, {}))
    path = options.pop("config", None)
    found = config.load(os.environ, Path(path) if path else None, options)
    drop_to_owner_of(found.db.parent, carried=carried)
    return found


def open_catalog(settings: Settings) -> Catalog:
    """The master that the settings name, with the contexts that the chain declares."""
    return Catalog.open(settings.db, settings.registry)


def check_stream(context: str, scope: str, settings: Settings) -> None:
    """Refuse a context that is not declared as wrong usage, and what is no name of a scope as a bad field."""
    if context not in settings.registry:
        known = ", ".join(sorted(settings.registry))
        raise click.BadParameter(f"{context[:80]!r} is not one of {known}", param_hint="CONTEXT")
    stream_named(settings.registry, context, scope)


@contextmanager
def arguments_as_options(names: Mapping[str, str]) -> Iterator[None]:
    """Name an argument of the library that is wrong as the option that was typed: argument -> option."""
    try:
        yield
    except BadField as error:
        if error.field in names:
            raise BadField(names[error.field], error.problem, hint=error.hint) from None
        raise


def _remember(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.meta.setdefault(_SETTINGS, {})[parameter.name] = value
