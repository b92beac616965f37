"""What the commands of `hq` print: errors as two lines, documents as JSON, words of others made harmless."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from hq.errors import HqError
from storelink.contract.errors import ContractViolation
from storelink.errors import StorelinkError


class HqGroup(click.Group):
    """Turns what HQ refuses into `error:` and `hint:` on stderr and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ContractViolation as error:
            complain(f"{error.field}: {error.detail}" if error.field else error.detail, "")
        except (HqError, StorelinkError) as error:
            complain(str(error), error.hint)
        raise click.exceptions.Exit(1)


def complain(message: str, hint: str) -> None:
    """Say on stderr what is wrong and, if there is a hint, what to type next."""
    click.echo(f"error: {message}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)


def warn_of_left_out(contexts: Mapping[str, str]) -> None:
    """Say on stderr which contexts a command passes over; name -> reason."""
    for name, reason in contexts.items():
        click.echo(f"warning: {name}: {reason}", err=True)


def print_json(document: Any) -> None:
    click.echo(json.dumps(document, ensure_ascii=False))


def printable(text: str) -> str:
    """What a store wrote, harmless on a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
