"""How a context's columns may change over time: they may gain some at the end, and nothing else.

What was agreed before is kept as a record: JSON text of `[[name, kind], ...]`, the keys marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from storelink.contract.contexts import Column, Context, Row

SHOWN_MAX = 3
SHOWN_CHARS_MAX = 40

_decode_record = msgspec.json.Decoder(list[tuple[str, str]]).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Same:
    """The columns are those of the record."""


@dataclass(frozen=True, slots=True)
class Gained:
    """The columns are those of the record, and `columns` behind them."""

    columns: tuple[Column, ...]

    @property
    def fill(self) -> Row:
        """What these columns hold in the rows that there are."""
        return tuple(column.default for column in self.columns)


@dataclass(frozen=True, slots=True)
class Differs:
    """The record cannot become these columns; `reason` says which, for a person."""

    reason: str


def record_of(context: Context) -> str:
    """What a table must remember of its context, to tell later what has changed."""
    keys = [(c.name, f"key:{_kind(c)}") for c in context.keys]
    return _encode([*keys, *((c.name, _kind(c)) for c in context.values)]).decode()


def names_of(record: str) -> tuple[str, ...]:
    """The columns of a record, keys first."""
    return tuple(name for name, _ in _decode_record(record))


def compare(record: str, context: Context) -> Same | Gained | Differs:
    """What a declaration makes of the columns that were recorded of it."""
    old = _decode_record(record)
    new = _decode_record(record_of(context))
    if new == old:
        return Same()
    before, after = dict(old), dict(new)
    lost = [name for name in before if name not in after]
    if lost:
        return Differs(f"the declaration lacks {_columns(lost)}: none can be removed or renamed")
    for name, kind in old:
        if after[name] != kind:
            return Differs(f"column {name} is of kind {after[name]} and was {kind}: no kind can be changed")
    if new[: len(old)] != old:
        return Differs("the order of the columns was changed: further ones go to the end")
    gained = context.values[len(old) - len(context.keys) :]
    bare = [c.name for c in gained if c.required and c.default is None]
    if bare:
        return Differs(f"the rows that there are need a default for the required {_columns(bare)}")
    return Gained(gained)


def columns_differ(context: Context, found: Sequence[str]) -> str:
    """Say how the columns of HQ's message differ from the declared ones."""
    extra = [name for name in found if name not in context.columns]
    if extra:
        return f"HQ's {context.name} has {_columns(extra)} that the declaration here lacks"
    lacking = [name for name in context.columns if name not in found]
    if lacking:
        return f"HQ's {context.name} lacks {_columns(lacking)} that the declaration here has"
    return f"HQ's {context.name} has its columns in another order than declared here"


def _kind(column: Column) -> str:
    return f"{column.kind}:{column.currency}" if column.currency else column.kind


def _columns(names: Sequence[str]) -> str:
    """Names for a person; they may come from an untrusted message."""
    shown = ", ".join(repr(name)[1:-1][:SHOWN_CHARS_MAX] for name in names[:SHOWN_MAX])
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return f"{'column' if len(names) == 1 else 'columns'} {shown}{more}"
