"""From a command's fields to an entity's new values: names, types and bounds checked, unnamed fields kept.

Fields are text as people type it; None or empty clears a field. Values are what goes on the wire: integers in the
minor unit of their currency, seconds since 1970, text of the length that the column allows.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import date, time
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec

from hq.core.pricing import Wanted, reprice
from hq.errors import BadField
from storelink.contract import schedule
from storelink.contract.codec import strict_json
from storelink.contract.contexts import Column, Context, Key, Row, Value
from storelink.contract.errors import ContractViolation
from storelink.contract.money import EXPONENTS, minor_units
from storelink.contract.times import epoch_seconds

Fields = Mapping[str, str | None]

FieldValue = str | int | float | Decimal | bool | date | time | dict[str, Any] | None
"""What a program may name as a field: text as people type it, or a value that has one obvious spelling."""

STEP_FIELDS = ("amount", "starts_at", "ends_at")
"""What a command says in place of a column of kind `schedule`."""

_INTEGER = re.compile(r"-?[0-9]{1,19}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_YES = ("true", "yes", "1")
_NO = ("false", "no", "0")

_encode_sorted = msgspec.json.Encoder(order="deterministic").encode


@lru_cache
def fields_of(context: Context) -> tuple[str, ...]:
    """The fields that commands and feeds of a context may name."""
    names: list[str] = []
    for column in (*context.keys, *context.values):
        names += STEP_FIELDS if column.kind == "schedule" else (column.name,)
    return tuple(names)


def check_names(context: Context, names: Iterable[str]) -> None:
    """Raise BadField for the first name that is no field of the context."""
    known = fields_of(context)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean {close[0]}? " if close else ""
            raise BadField(name[:80], f"is no field of {context.name}", hint=f"{meant}fields: {', '.join(known)}")


def as_text(context: Context, field: str, value: FieldValue) -> str | None:
    """
    A field as a person would have typed it.

    Raises:
        BadField: the value has no obvious spelling in this field, such as a float that is a key.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, (float, Decimal)) and math.isfinite(value) and field not in context.key_names:
        return format(value if isinstance(value, Decimal) else Decimal(repr(value)), "f")
    if isinstance(value, bool) and _has_column(context, field, "boolean"):
        return str(value).lower()
    if isinstance(value, dict) and _has_column(context, field, "json"):
        return _encode_sorted(value).decode()
    if isinstance(value, (date, time)):
        return value.isoformat()
    raise BadField(field, f"{str(value)[:40]!r} must be text or a number")


def _has_column(context: Context, field: str, kind: str) -> bool:
    return any(column.name == field and column.kind == kind for column in context.values)


def key_of(context: Context, fields: Fields) -> Key:
    """The key that the fields name; a key column with a default may be left out. Raises BadField."""
    return tuple(_required(column, fields.get(column.name)) for column in context.keys)


@lru_cache
def is_priced(context: Context) -> bool:
    """Whether an entity of the context is a price with a schedule of steps."""
    return any(column.kind == "schedule" for column in context.values)


def edited(context: Context, fields: Fields, current: Row | None, now: int) -> Row:
    """
    The entity's values after one command, in declared order. A field that is not named keeps its value.

    Args:
        current: the entity's values before it; None for a new one.
        now: seconds since 1970.

    Raises:
        BadField: a field that the column cannot hold, or that is missing.
    """
    wanted = wanted_of(context, fields, current) if is_priced(context) else None
    return apply(context, fields, wanted, current, now)


def apply(context: Context, fields: Fields, wanted: Wanted | None, current: Row | None, now: int) -> Row:
    """Like `edited`, with the schedule's step read already."""
    result: list[Value] = []
    for index, column in enumerate(context.values):
        old = None if current is None else current[index]
        if column.kind == "schedule":
            result.append(_rescheduled(context, fields, wanted, current, now) if wanted else old)
        elif column.name in fields:
            result.append(_value(column, fields[column.name], old))
        elif current is None or (old is None and column.required):
            result.append(_left_out(column))
        else:
            result.append(old)
    return tuple(result)


def wanted_of(context: Context, fields: Fields, current: Row | None) -> Wanted:
    """Read amount, starts_at and ends_at, in the currency that is named, or else the entity's own. Raises BadField."""
    currency = _currency(context, fields, current)
    amount = (fields.get("amount") or "").strip()
    if not amount:
        raise BadField("amount", "is missing")
    try:
        minor = minor_units(amount, currency)
    except ValueError as error:
        raise BadField("amount", str(error)) from None
    return Wanted(minor, _time(fields, "starts_at"), _time(fields, "ends_at"))


def _rescheduled(context: Context, fields: Fields, wanted: Wanted | None, current: Row | None, now: int) -> str:
    if wanted is None:
        raise BadField("amount", "is missing")
    old_text, old_currency = _priced_before(context, current)
    old = schedule.load(old_text) if old_text else ()
    if old_currency and old_currency != _currency(context, fields, current):
        if wanted.starts_at is not None and wanted.starts_at > now:
            raise BadField("currency", f"is {old_currency} now; another one can only take effect at once")
        if any(step.starts_at > now for step in old):
            raise BadField("currency", f"has coming prices in {old_currency}", hint="delete the price line first")
        old = ()
    try:
        new = reprice(old, wanted, now)
    except ContractViolation as error:
        raise BadField(error.field or "schedule", error.detail) from None
    return old_text if old_text and new == old else schedule.dump(new)


def _priced_before(context: Context, current: Row | None) -> tuple[str, str]:
    """The schedule and currency in force; empty for a new entity."""
    if current is None:
        return "", ""
    named = {column.kind: str(value) for column, value in zip(context.values, current, strict=True)}
    return named["schedule"], named["currency"]


def _currency(context: Context, fields: Fields, current: Row | None) -> str:
    column = next(c for c in context.values if c.kind == "currency")
    return _required(column, fields.get(column.name) or _priced_before(context, current)[1])


def _time(fields: Fields, name: str) -> int | None:
    text = (fields.get(name) or "").strip()
    try:
        return epoch_seconds(text) if text else None
    except ValueError as error:
        raise BadField(name, str(error)) from None


def _required(column: Column, text: str | None) -> str:
    value = _value(column, text, None)
    if value is None:
        raise BadField(column.name, "is missing")
    return str(value)


def _value(column: Column, text: str | None, old: Value) -> Value:
    if text is not None and text == old:
        return old  # was checked when it came in
    text = (text or "").strip()
    if not text:
        return _left_out(column) if column.required else None
    return checked(column, text)


def _left_out(column: Column) -> Value:
    """The value of a column that a command does not name. Raises BadField if it must be named."""
    if column.required and column.default is None:
        raise BadField(column.name, "is missing")
    return column.default


def are_texts(column: Column, texts: Collection[str]) -> bool:
    """Whether `checked` would take each of these as it is: one look at all of them, for a column of kind `text`."""
    joined = "".join(texts)
    if max(map(len, texts), default=0) > column.chars_max or (column.chars_max < 100 and not joined.isprintable()):
        return False
    return column.kind == "text" and _unsendable(joined) is None


def checked(column: Column, text: str) -> Value:
    """The value that a stripped text stands for. Raises BadField if the column cannot hold it."""
    plain = text.isascii() and text.isprintable() and "\\u0000" not in text
    if plain and column.kind == "text" and len(text) <= column.chars_max:
        return text  # nearly all values
    if column.is_integer:
        try:
            return _integer_of(column, text)
        except ValueError as error:
            raise BadField(column.name, str(error)) from None
    problem = _unsendable(text)
    if problem is None and len(text) > column.chars_max:
        problem = f"has {len(text)} characters; at most {column.chars_max}"
    if problem is None and column.kind == "choice" and text not in column.choices:
        problem = f"{text[:40]!r} must be one of {', '.join(column.choices)}"
    if problem is None and column.kind == "currency" and text not in EXPONENTS:
        problem = f"{text[:40]!r} is no ISO 4217 currency code such as EUR"
    if problem is None and column.kind == "date":
        problem = _why_no_date(text)
    if problem is None and column.chars_max < 100 and not text.isprintable():
        problem = "holds a control character"
    if problem is not None:
        raise BadField(column.name, problem)
    return _json_object(column, text) if column.kind == "json" else text


def _unsendable(text: str) -> str | None:
    """Why no store would accept the text; see storelink/contract/codec.py."""
    if "\0" in text or "\\u0000" in text:
        return "holds a NUL character"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "holds half a character (a lone surrogate)"
    return None


def _json_object(column: Column, text: str) -> str:
    """One spelling for equal objects, so that the same again is no change."""
    try:
        value = strict_json(text)
    except ContractViolation as error:
        raise BadField(column.name, f"is not JSON: {error.detail}") from None
    if not isinstance(value, dict):
        raise BadField(column.name, "must be a JSON object")
    result = _encode_sorted(value)
    if strict_json(result) != value or len(result) > column.chars_max:
        raise BadField(column.name, "holds a number out of range, or is too long")
    return result.decode()


def _integer_of(column: Column, text: str) -> int:
    """
    The integer that a stripped text stands for in a column of an integer kind.

    Raises:
        ValueError: it stands for none, or for one out of bounds.
    """
    if column.kind == "amount":
        return minor_units(text, column.currency)
    if column.kind == "boolean":
        if text.lower() not in _YES + _NO:
            raise ValueError(f"{text[:40]!r} must be true or false")
        return int(text.lower() in _YES)
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a whole number")
    found = int(text)
    if not column.at_least <= found <= column.at_most:
        raise ValueError(f"{found} must be between {column.at_least} and {column.at_most}")
    return found


def _why_no_date(text: str) -> str | None:
    """What is wrong with a day; None if nothing is."""
    try:
        if _DATE.fullmatch(text):
            date.fromisoformat(text)
            return None
    except ValueError:
        pass
    return f"{text[:40]!r} is no date such as 2026-12-24"
