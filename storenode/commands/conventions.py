"""The conventions of every command: settings, `--json`, errors as two lines, exit codes that are a verdict."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import click

from storelink.contract.contexts import Context
from storelink.contract.errors import ContractViolation
from storelink.errors import StorelinkError
from storelink.host.privileges import Carried, drop_to_owner_of
from storenode.config import Examined, Settings, examine
from storenode.core import states
from storenode.errors import StorenodeError

P = ParamSpec("P")
R = TypeVar("R")

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON; docs/operating/reference.md lists the keys."
)
at_option = click.option("--at", metavar="TIME", help="At this time, such as 2026-12-24T08:00:00Z. Default: now.")


class SettingsOf:
    """The settings of the running command; who calls for them as root becomes the owner of the files they name."""

    def __init__(self, read: Callable[[], Settings]) -> None:
        self.read = read
        """The same, and root stays root: for nothing but preparing what is carried along."""

    def __call__(self, *carried: Carried) -> Settings:
        found = self.read()
        become_owner(found, *carried)
        return found


def become_owner(settings: Settings, *carried: Carried) -> None:
    """Root becomes the owner of the replica's directory, or else of the outbox's."""
    drop_to_owner_of(settings.db.parent, settings.outbox_path.parent, carried=carried)


def examined(context: click.Context) -> Examined:
    """The settings of the running command as far as they can be read, and every mistake."""
    options = dict(context.find_root().params)
    found = examine(os.environ, options.pop("config"), options)
    become_owner(found.settings)
    return found


class CannotJudge(click.UsageError):
    exit_code = states.UNKNOWN


class Judging(click.Command):
    """A command whose exit code is a verdict on the replica: wrong usage must not look like one."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            raise CannotJudge(error.format_message(), error.ctx) from error


def reported(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our errors into one clear line and a hint."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (StorenodeError, StorelinkError, ContractViolation) as error:
            click.echo(f"error: {error}", err=True)
            if hint := getattr(error, "hint", ""):
                click.echo(f"hint: {hint}", err=True)
            is_judging = isinstance(click.get_current_context().command, Judging)
            raise SystemExit(states.UNKNOWN if is_judging else 1) from error

    return wrapped


def declared_context(name: str, settings: Settings) -> Context:
    """The context that a command names."""
    contexts = settings.registry
    if name not in contexts:
        raise click.BadParameter(f"{name[:80]!r} is not one of {', '.join(contexts)}", param_hint="CONTEXT")
    return contexts[name]


def print_json(document: Any) -> None:
    """Print it on one line, letters as they are; a path that is no Unicode is escaped."""
    text = json.dumps(document, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(document)
    click.echo(text)
