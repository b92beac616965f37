"""A row of the master as rows of a feed, in CSV or NDJSON: an import of them with `--full` changes nothing.

A price line becomes one row for each step of its schedule. Fields are those that feeds may name (`edits.fields_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from hq.core.edits import fields_of
from storelink.contract import schedule
from storelink.contract.contexts import Column, Context, Row, Value
from storelink.contract.money import money_text
from storelink.contract.times import rfc3339

Format = Literal["csv", "ndjson"]

FeedDocument = dict[str, str | int | bool | msgspec.Raw | None]
"""One row of a feed: field -> value. A JSON object stays spelled as it is stored."""

_QUOTED = frozenset(',"\r\n')

_encode = msgspec.json.Encoder().encode


def feed_rows(context: Context, row: Row) -> Iterator[FeedDocument]:
    """The rows of a feed that one live row `(seq, *keys, *values)` stands for."""
    columns = (*context.keys, *context.values)
    named = dict(zip((column.name for column in columns), row[1:], strict=True))
    document: FeedDocument = {}
    steps: schedule.Schedule = ()
    currency = ""
    for column in columns:
        if column.kind == "schedule":
            steps = schedule.load(str(named[column.name]))
            currency = next(str(named[c.name]) for c in context.values if c.kind == "currency")
            document |= dict.fromkeys(("amount", "starts_at", "ends_at"))
        else:
            document[column.name] = _field(column, named[column.name])
    if not steps:
        yield document
    for step in steps:
        yield document | {
            "amount": _decimal(step.amount_minor, currency),
            "starts_at": rfc3339(step.starts_at * 1000),
            "ends_at": None if step.ends_at is None else rfc3339(step.ends_at * 1000),
        }


def lines(context: Context, rows: Iterable[FeedDocument], file_format: Format) -> Iterator[str]:
    """The feed as text, with the ends of lines; CSV begins with its header."""
    write: Callable[[Mapping[str, object]], str] = _ndjson_line if file_format == "ndjson" else _csv_line
    if file_format == "csv":
        yield ",".join(fields_of(context)) + "\n"
    for row in rows:
        yield write(row)


def _field(column: Column, value: Value) -> str | int | bool | msgspec.Raw | None:
    if value is None:
        return None
    if column.kind == "boolean":
        return bool(value)
    if column.kind == "amount":
        return _decimal(int(value), column.currency)
    if column.kind == "json":
        return msgspec.Raw(str(value).encode())
    return value


def _decimal(amount_minor: int, currency: str) -> str:
    return money_text(amount_minor, currency).partition(" ")[0]


def _ndjson_line(row: Mapping[str, object]) -> str:
    return _encode(row).decode() + "\n"


def _csv_line(row: Mapping[str, object]) -> str:
    return ",".join(map(_cell, row.values())) + "\n"


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case msgspec.Raw():
            text = bytes(value).decode()
        case _:
            text = str(value)
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if _QUOTED & set(text) else text
