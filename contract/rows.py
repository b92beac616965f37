"""Rows on the wire: decoders built from the declarations, and what a compacted set of rows must keep."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from itertools import islice
from operator import itemgetter, lt
from typing import Annotated, Any, Literal, cast

import msgspec

from contract import codec, schedule
from contract.contexts import Column, Context, Row
from contract.errors import ContractViolation
from contract.limits import ROWS_MAX, SEQ_MAX
from contract.streams import Stream


def decode_rows(stream: Stream, raw_rows: msgspec.Raw, raw_deleted: msgspec.Raw) -> tuple[list[Row], list[Row]]:
    """Decode the `rows` and `deleted` members of a message, each value by its column's declaration."""
    context = stream.declared
    row_decoder, key_decoder = _decoders(context)
    rows = cast("list[Row]", codec.decode_part(row_decoder, raw_rows, "rows"))
    deleted = cast("list[Row]", codec.decode_part(key_decoder, raw_deleted, "deleted"))
    for index, column in enumerate(context.values, start=1 + len(context.keys)):
        check = _CHECKS.get(column.kind)
        if check is not None:
            # Many rows share few values: currencies, and schedules of the same import and amount.
            for value in dict.fromkeys(map(itemgetter(index), rows)):
                if value is not None:
                    check(str(value), column.name)
    return rows, deleted


def check_compacted(context: Context, rows: list[Row], deleted: list[Row], first: int, last: int) -> None:
    """Rows in order of seq within the range, no entity twice."""
    for part in (rows, deleted):
        seqs = cast("list[int]", list(map(itemgetter(0), part)))
        if seqs and (seqs[0] < first or seqs[-1] > last or not all(map(lt, seqs, islice(seqs, 1, None)))):
            raise ContractViolation("bad_range", f"seqs must rise within {first}-{last}")
    key_of = itemgetter(*range(1, 1 + len(context.keys)))
    keys = {*map(key_of, rows), *map(key_of, deleted)}
    if len(keys) != len(rows) + len(deleted):
        raise ContractViolation("bad_range", "an entity appears twice in a compacted message")


def _check_object(text: str, name: str) -> None:
    if not isinstance(codec.strict_json(text), dict):
        raise ContractViolation("wrong_type", "must be a JSON object", field=name)


def _check_schedule(text: str, name: str) -> None:
    """One open step, by far the most frequent, needs no more than its pattern."""
    if not _SCHEDULE(text):
        raise ContractViolation("wrong_type", f"{text[:80]!r} is no schedule", field=name)
    if text.count("[") != 2 or ",null," not in text:
        schedule.load(text)


def _check_currency(text: str, name: str) -> None:
    if not _CURRENCY(text):
        raise ContractViolation("wrong_type", f"{text[:80]!r} is no currency", field=name)


def _check_date(text: str, name: str) -> None:
    """`YYYY-MM-DD`, a day that there is."""
    try:
        if not _DATE(text):
            raise ValueError
        date.fromisoformat(text)
    except ValueError:
        raise ContractViolation("wrong_type", f"{text[:80]!r} is no date such as 2026-12-24", field=name) from None


_CHECKS = {"json": _check_object, "schedule": _check_schedule, "currency": _check_currency, "date": _check_date}
_NUMBER = "(?:0|[1-9][0-9]{0,17})"
_STEP = rf"\[{_NUMBER},(?:null|{_NUMBER}),{_NUMBER}\]"
_SCHEDULE = re.compile(rf"\[{_STEP}(?:,{_STEP})*\]").fullmatch
_CURRENCY = re.compile(r"[A-Z]{3}").fullmatch
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch


@lru_cache
def _decoders(context: Context) -> tuple[msgspec.json.Decoder[Any], msgspec.json.Decoder[Any]]:
    seq = Annotated[int, msgspec.Meta(ge=1, le=SEQ_MAX)]
    keys = tuple(_type_of(c) for c in context.keys)
    values = tuple(_type_of(c) for c in context.values)
    many = msgspec.Meta(max_length=ROWS_MAX)
    row_type: Any = tuple.__class_getitem__((seq, *keys, *values))
    key_type: Any = tuple.__class_getitem__((seq, *keys))
    return (
        msgspec.json.Decoder(Annotated[list[row_type], many]),
        msgspec.json.Decoder(Annotated[list[key_type], many]),
    )


def _type_of(column: Column) -> Any:
    kind: Any
    if column.choices:
        kind = Literal.__getitem__(column.choices)
    elif column.is_integer:
        kind = Annotated[int, msgspec.Meta(ge=column.at_least, le=column.at_most)]
    else:
        bounds = msgspec.Meta(min_length=1 if column.required else None, max_length=column.chars_max)
        kind = Annotated[str, bounds]
    return kind if column.required else kind | None
