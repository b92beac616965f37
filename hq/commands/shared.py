"""What all commands share: settings from options, errors as two lines, facts as JSON."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from hq import config
from hq.config import Settings
from hq.errors import GuardTripped, HqError
from hq.master.context_migration import left_out
from hq.master.store import Master
from storelink.contract.errors import ContractViolation
from storelink.contract.streams import Stream, checked_name
from storelink.errors import StorelinkError
from storelink.host.privileges import Carried, drop_to_owner_of

F = TypeVar("F", bound=Callable[..., Any])

_SETTINGS = "hq.settings"

context_argument = click.argument("context")
scope_option = click.option("--scope", default="all", show_default=True, help="Chain-wide, a zone or one store.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


class HqGroup(click.Group):
    """Turns what HQ refuses into `error:` and `hint:` on stderr and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ContractViolation as error:
            _complain(f"{error.field}: {error.detail}" if error.field else error.detail, "")
        except GuardTripped as error:
            _complain("\n".join([str(error), *error.lines]), error.hint)
        except (HqError, StorelinkError) as error:
            _complain(str(error), error.hint)
        raise click.exceptions.Exit(1)


def configured(command: F) -> F:
    """Give a command the options that say where HQ is; `settings()` reads them."""
    for name, text in (
        ("root", "First level(s) of every topic."),
        ("broker", "Broker, as mqtt://host:1883 or mqtts://user:password@host:8883."),
        ("db", "The master, an SQLite file."),
        ("config", "TOML file with these settings; HQ_CONFIG."),
    ):
        command = click.option(f"--{name}", expose_value=False, callback=_remember, help=text)(command)
    return command


def settings(*carried: Carried) -> Settings:
    """The settings of the running command; who calls for them as root becomes the owner of the master's directory."""
    options: dict[str, str | None] = dict(click.get_current_context().meta.get(_SETTINGS, {}))
    path = options.pop("config", None)
    found = config.load(os.environ, Path(path) if path else None, options)
    drop_to_owner_of(found.db.parent, carried=carried)
    return found


def stream_of(context: str, scope: str, settings: Settings) -> Stream:
    """The stream that a command names."""
    contexts = settings.registry
    if context not in contexts:
        raise click.BadParameter(f"{context[:80]!r} is not one of {', '.join(sorted(contexts))}", param_hint="CONTEXT")
    return Stream(contexts[context], checked_name(scope, "scope"))


def warn_of_left_out(master: Master) -> None:
    """Say on stderr which contexts a command passes over."""
    for name, reason in left_out(master.query, master.contexts).items():
        click.echo(f"warning: {name}: {reason}", err=True)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def print_json(document: Any) -> None:
    click.echo(json.dumps(document, ensure_ascii=False))


def _remember(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.meta.setdefault(_SETTINGS, {})[parameter.name] = value


def _complain(message: str, hint: str) -> None:
    click.echo(f"error: {message}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)
