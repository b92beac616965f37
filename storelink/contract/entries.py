"""What store software may tell HQ: an entry's type and data, checked alike at the store and at HQ."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from storelink.contract import codec
from storelink.contract.errors import ContractViolation
from storelink.contract.limits import ENTRY_BYTES_MAX, ENTRY_DEPTH_MAX, ENTRY_TYPE_CHARS_MAX, SEQ_MAX

OVERRIDE_SET, OVERRIDE_WITHDRAWN = "storenode.override.set", "storenode.override.withdrawn"
"""Entries by which a store tells of a price that it sets itself; see storelink/contract/README.md, section 10.4."""

_TYPE = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9._-]{{0,{ENTRY_TYPE_CHARS_MAX - 2}}}[A-Za-z0-9])?")


def checked_type(text: str) -> str:
    """Return the name of an entry's type (`sale.total`). Raises ContractViolation."""
    if not _TYPE.fullmatch(text):
        raise ContractViolation(
            "bad_name",
            f"type {text[:80]!r} must be 1 to {ENTRY_TYPE_CHARS_MAX} letters, digits, '.', '_' and '-',"
            " beginning and ending in a letter or digit",
            field="type",
        )
    return text


def checked_at_ms(at_ms: int) -> int:
    """Return an entry's time, in milliseconds since 1970. Raises ContractViolation for what no message can say."""
    if not 0 <= at_ms <= SEQ_MAX:
        raise ContractViolation("wrong_type", f"{at_ms} is no time since 1970 in milliseconds", field="at_ms")
    return at_ms


def checked_json(text: str | bytes) -> str:
    """
    Return one JSON value as compact text; its numbers and strings stay spelled as they came.

    Args:
        text: any JSON value, untrusted.

    Raises:
        ContractViolation: not strict JSON, nested too deep, a number out of range, or too large.
    """
    if len(text) > 2 * ENTRY_BYTES_MAX:
        raise _oversized(len(text))
    try:
        plain = text if isinstance(text, str) else text.decode("utf-8")
        value = codec.strict_json(plain)
        _check(value)
        compact = msgspec.json.format(plain, indent=-1)
    except (UnicodeError, msgspec.MsgspecError, RecursionError) as error:
        raise ContractViolation("bad_json", str(error)[:200], field="data") from error
    size_bytes = len(compact.encode())
    if size_bytes > ENTRY_BYTES_MAX:
        raise _oversized(size_bytes)
    return compact


def _check(value: Any) -> None:
    """Refuse what a reader in another language could not hold."""
    level, depth = [value], 0
    while level:
        deeper: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                deeper += [*each, *each.values()]
            elif isinstance(each, list):
                deeper += each
            elif isinstance(each, str):
                if "\0" in each:
                    raise ContractViolation("bad_json", "text with a NUL character", field="data")
            elif isinstance(each, float) and not math.isfinite(each):
                raise ContractViolation("bad_json", "a number out of range", field="data")
            elif isinstance(each, int) and not -SEQ_MAX - 1 <= each <= SEQ_MAX:
                raise ContractViolation("bad_json", "an integer beyond 63 bits", field="data")
        level, depth = deeper, depth + 1
        if depth > ENTRY_DEPTH_MAX + 1:
            raise ContractViolation("bad_json", f"nested deeper than {ENTRY_DEPTH_MAX}", field="data")


def _oversized(size_bytes: int) -> ContractViolation:
    return ContractViolation(
        "oversized", f"data of {size_bytes} bytes; an entry holds at most {ENTRY_BYTES_MAX}", field="data"
    )
