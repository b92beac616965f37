"""What people type for the kinds that are no plain text: whole numbers, amounts, yes or no, days."""

from __future__ import annotations

import re
from datetime import date

from storelink.contract.contexts import Column
from storelink.contract.money import minor_units

_WHOLE = re.compile(r"-?[0-9]{1,19}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_YES = ("true", "yes", "1")
_NO = ("false", "no", "0")


def integer_of(column: Column, text: str) -> int:
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
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a whole number")
    found = int(text)
    if not column.at_least <= found <= column.at_most:
        raise ValueError(f"{found} must be between {column.at_least} and {column.at_most}")
    return found


def why_no_date(text: str) -> str | None:
    """What is wrong with a day; None if nothing is."""
    try:
        if _DATE.fullmatch(text):
            date.fromisoformat(text)
            return None
    except ValueError:
        pass
    return f"{text[:40]!r} is no date such as 2026-12-24"
