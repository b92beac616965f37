"""Rows on the wire: decoders built from the declarations, and what a compacted set of rows must keep."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any, cast

import msgspec

from contract import codec, schedule
from contract.contexts import CONTEXTS, Column, Context, Row
from contract.errors import ContractViolation
from contract.limits import ROWS_MAX, SEQ_MAX
from contract.streams import Stream


def decode_rows(stream: Stream, raw_rows: msgspec.Raw, raw_deleted: msgspec.Raw) -> tuple[list[Row], list[Row]]:
    """Decode the `rows` and `deleted` members of a message, each value by its column's declaration."""
    context = stream.declared
    row_decoder, key_decoder = _decoders(context.name)
    rows = cast("list[Row]", codec.decode_part(row_decoder, raw_rows, "rows"))
    deleted = cast("list[Row]", codec.decode_part(key_decoder, raw_deleted, "deleted"))
    for index, column in enumerate(context.values, start=1 + len(context.keys)):
        check = _CHECKS.get(column.kind)
        if check is not None:
            for row in rows:
                if row[index] is not None:
                    check(str(row[index]), column.name)
    return rows, deleted


def check_compacted(context: Context, rows: list[Row], deleted: list[Row], first: int, last: int) -> None:
    """Rows in order of seq within the range, no entity twice."""
    for part in (rows, deleted):
        seqs = [cast(int, r[0]) for r in part]
        if seqs and (seqs[0] < first or seqs[-1] > last or any(a >= b for a, b in pairwise(seqs))):
            raise ContractViolation("bad_range", f"seqs must rise within {first}-{last}")
    width = 1 + len(context.keys)
    keys = {r[1:width] for r in rows}
    keys.update(r[1:width] for r in deleted)
    if len(keys) != len(rows) + len(deleted):
        raise ContractViolation("bad_range", "an entity appears twice in a compacted message")


def _check_object(text: str, name: str) -> None:
    if not isinstance(codec.strict_json(text), dict):
        raise ContractViolation("wrong_type", "must be a JSON object", field=name)


def _check_schedule(text: str, _name: str) -> None:
    """One open step, by far the most frequent, needs no more than its decoder's pattern."""
    if text.count("[") != 2 or ",null," not in text:
        schedule.load(text)


_CHECKS = {"json": _check_object, "schedule": _check_schedule}
_NUMBER = "(?:0|[1-9][0-9]{0,17})"


@lru_cache
def _decoders(name: str) -> tuple[msgspec.json.Decoder[Any], msgspec.json.Decoder[Any]]:
    context = CONTEXTS[name]
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
    if column.kind == "choice":
        pattern = rf"^(?:{'|'.join(column.choices)})\Z"
    elif column.kind == "currency":
        pattern = r"^[A-Z]{3}\Z"
    elif column.kind == "schedule":
        step = rf"\[{_NUMBER},(?:null|{_NUMBER}),{_NUMBER}\]"
        pattern = rf"^\[{step}(?:,{step})*\]\Z"
    else:
        pattern = None
    kind: Any = Annotated[
        str, msgspec.Meta(min_length=1 if column.required else None, max_length=column.chars_max, pattern=pattern)
    ]
    return kind if column.required else kind | None
