"""Rows on the wire: decoders built from the declarations, what a compacted set of rows must keep, and the digest.

The digest of a set of rows is the sum, modulo 2^128, of BLAKE2b-128 over each live row's canonical bytes; tombstones do
not count. It does not depend on order, and a change is two additions: HQ carries it along, every replica can recompute
it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from operator import itemgetter, lt
from typing import Annotated, Any, Literal, NamedTuple, cast

import msgspec

from storelink.contract import codec, schedule
from storelink.contract.contexts import Column, Context, Key, Row
from storelink.contract.errors import ContractViolation
from storelink.contract.limits import ROWS_MAX, SEQ_MAX

MODULUS = 1 << 128
EMPTY = "0" * 32
"""The digest of no rows."""

_encode = msgspec.json.Encoder().encode


class Held(NamedTuple):
    """A version of an entity that breaks a rule of its context. `row`: its canonical JSON, as the digest counts it."""

    seq: int
    key: Key
    row: str
    reason: str


class Rows(NamedTuple):
    """What a message holds: rows, tombstones `(seq, *keys)`, and what is held. `kept`: indexes of rows, if not all."""

    rows: list[Row]
    deleted: list[Row]
    held: tuple[Held, ...] = ()
    kept: Sequence[int] | None = None


def read_rows(context: Context, raw_rows: msgspec.Raw, raw_deleted: msgspec.Raw) -> Rows:
    """
    Decode as `decode_rows` does, but hold single rows that break a rule.

    That is: under a good name, only texts, nulls, and integers where some are declared, and one is not as declared.
    Raises ContractViolation for the message where a row is less than that.
    """
    try:
        found = Rows(*decode_rows(context, raw_rows, raw_deleted))
    except ContractViolation as violation:
        found = _one_by_one(context, raw_rows, raw_deleted, violation)
    check_row_count(len(found.rows) + len(found.held) + len(found.deleted))
    return found


def check_row_count(count: int) -> None:
    """Raise ContractViolation for more rows and tombstones than one message may hold."""
    codec.check_count(count, ROWS_MAX, "rows and tombstones")


def decode_rows(context: Context, raw_rows: msgspec.Raw, raw_deleted: msgspec.Raw) -> tuple[list[Row], list[Row]]:
    """Decode the `rows` and `deleted` members of a message, each value by its column's declaration."""
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


def _one_by_one(context: Context, raw_rows: msgspec.Raw, raw_deleted: msgspec.Raw, of_all: ContractViolation) -> Rows:
    """Raises `of_all`, the violation of all rows together, where a row is not even texts under an entity's name."""
    raws = codec.decode_part(_RAWS, raw_rows, "rows")
    deleted = cast("list[Row]", codec.decode_part(_decoders(context)[1], raw_deleted, "deleted"))
    rows: list[Row] = []
    held: list[Held] = []
    kept: list[int] = []
    none = msgspec.Raw(b"[]")
    for index, raw in enumerate(raws):
        try:
            rows += decode_rows(context, msgspec.Raw(b"[" + bytes(raw) + b"]"), none)[0]
            kept.append(index)
        except ContractViolation as violation:
            held.append(_held(context, raw, violation, of_all))
    return Rows(rows, deleted, tuple(held), kept)


def _held(context: Context, raw: msgspec.Raw, violation: ContractViolation, of_all: ContractViolation) -> Held:
    values = codec.decode_part(_VALUES, raw, "rows")
    width = 1 + len(context.keys)
    try:
        named = msgspec.json.encode([values[:width]])
        ((seq, *key),) = codec.decode_part(_decoders(context)[1], msgspec.Raw(named), "rows")
    except (ContractViolation, UnicodeEncodeError):
        raise of_all from None
    if len(values) != len(context.columns) or not all(_is_sound(v, context) for v in values[width:]):
        raise of_all
    place = _PLACE.search(violation.detail)
    column = context.columns[int(place[1])] if place else violation.field
    detail = violation.detail.removeprefix("rows: ").partition(" - at ")[0]
    return Held(seq, tuple(key), canonical(tuple(values)).decode(), f"{column}: {detail}")


def _is_sound(value: Any, context: Context) -> bool:
    """Whether a value is at least of a type that travels in rows of the context."""
    if type(value) is int:
        return abs(value) <= SEQ_MAX and any(column.is_integer for column in context.values)
    return isinstance(value, str | None)


def check_compacted(context: Context, found: Rows, first: int, last: int) -> None:
    """Rows in order of seq within the range, no entity twice."""
    rows, deleted, held, _ = found
    named: list[Row] = [(each.seq, *each.key) for each in held]
    for part in (rows, deleted, named):
        seqs = cast("list[int]", list(map(itemgetter(0), part)))
        if seqs and (seqs[0] < first or seqs[-1] > last or not all(map(lt, seqs, islice(seqs, 1, None)))):
            raise ContractViolation("bad_range", f"seqs must rise within {first}-{last}")
    key_of = itemgetter(*range(1, 1 + len(context.keys)))
    keys = {*map(key_of, rows), *map(key_of, deleted), *map(key_of, named)}
    if len(keys) != len(rows) + len(deleted) + len(named):
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
_RAWS = msgspec.json.Decoder(Annotated[list[msgspec.Raw], msgspec.Meta(max_length=ROWS_MAX)])
_VALUES = msgspec.json.Decoder(list[Any])
_PLACE = re.compile(r" - at `\$\[0\]\[(\d{1,3})\]`")
"""Where msgspec says that one row of one is wrong."""

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


def canonical(row: Row) -> bytes:
    """A row's canonical bytes: compact JSON of `[seq, *keys, *values]`, UTF-8, nothing escaped but what must be."""
    return _encode(row)


def row_hash(row: Row) -> int:
    return hash_of(_encode(row))


def hash_of(encoded: bytes) -> int:
    """The hash of a row, by its canonical bytes."""
    return int.from_bytes(blake2b(encoded, digest_size=16).digest(), "big")


def total(rows: Iterable[Row]) -> int:
    """The sum over rows; 450,000 a second."""
    acc = 0
    for row in rows:
        acc += int.from_bytes(blake2b(_encode(row), digest_size=16).digest(), "big")
    return acc % MODULUS


def to_hex(value: int) -> str:
    return f"{value % MODULUS:032x}"


def from_hex(text: str) -> int:
    return int(text, 16)
