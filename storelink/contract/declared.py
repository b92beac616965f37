"""A chain's own contexts: from the text of a TOML file to declarations, or to one error that lists all mistakes.

    [[context]]
    name = "tax"
    table = "taxes"                                    # what readers see; the context's name if left out
    keys = [{ name = "tax_class" }, { name = "country", max_chars = 2 }]
    values = [{ name = "rate_bp", kind = "integer", min = 0, max = 10000, required = true }]
    search = []                                        # columns of text that a store indexes

Normative text: storelink/contract/README.md, section 11.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from datetime import date
from typing import Any, cast

from storelink.contract.contexts import BUILT_IN, INTEGER_KINDS, Column, Context, Kind, Value
from storelink.contract.errors import ContractViolation
from storelink.contract.limits import (
    CHOICES_MAX,
    COLUMNS_MAX,
    CONTEXTS_MAX,
    JSON_CHARS_MAX,
    KEY_CHARS_MAX,
    KEYS_MAX,
    SEQ_MAX,
    TEXT_CHARS_MAX,
)

KINDS = ("text", "choice", "integer", "amount", "boolean", "date", "currency", "json")
"""The kinds that a chain may use; `schedule` stays the price's own."""

KEY_KINDS = ("text", "choice", "date")
SEARCHABLE_KINDS = ("text", "choice")

RESERVED_COLUMNS = ("seq", "scope", "deleted", "rowid", "oid", "rank")
RESERVED_TABLES = (
    *(context.table for context in BUILT_IN.values()),
    "catalog",
    "current_prices",
    "freshness",
    "scopes",
    "streams",
    "daemon",
    "contexts",
    "shapes",
    "quarantine",
    "unfollowed_streams",
    "commits",
    "clock",
    "read_models",
    "overrides",
    "availability",
    "jobs",
    "events",
    "outbox",
)
RESERVED_PREFIXES = ("sqlite_", "product_", "price_", "search_", "master_")

_WORDS = (
    "add all alter and as autoincrement between case cast check collate commit constraint create current_date"
    " current_time current_timestamp default deferrable delete distinct drop else escape except exists foreign from"
    " group having if in index insert intersect into is isnull join limit not nothing notnull null on or order primary"
    " raise references returning select set table then to transaction union unique update using values when"
    " where"
)
SQL_WORDS = frozenset(_WORDS.split())
"""What cannot stand in SQL as it is: a till types the names of columns and tables."""

_NAME = re.compile(r"[a-z](?:[a-z0-9_]{0,30}[a-z0-9])?")  # as in storelink.contract.streams
_CURRENCY = re.compile(r"[A-Z]{3}")
_CONTEXT_MEMBERS = ("name", "table", "keys", "values", "search")
_COLUMN_MEMBERS = ("name", "kind", "required", "max_chars", "choices", "default", "min", "max", "currency")

Mistakes = list[str]


def parse(text: str) -> tuple[Context, ...]:
    """Read declarations. Raises ContractViolation that lists every mistake."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ContractViolation("bad_declaration", f"is not TOML: {error}") from None
    mistakes: Mistakes = []
    _check_members("the file", document, ("context",), mistakes)
    tables = document.get("context", [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        tables, mistakes = [], [*mistakes, "write each context as [[context]]"]
    if len(tables) > CONTEXTS_MAX:
        mistakes.append(f"{len(tables)} contexts, at most {CONTEXTS_MAX}")
    found = [_context(each, place, mistakes) for place, each in enumerate(tables, start=1)]
    for what, names in (("context", [c.name for c in found]), ("table", [c.table for c in found])):
        mistakes += [f"{what} {name} is declared twice" for name in _twice(name for name in names if name)]
    if mistakes:
        raise ContractViolation("bad_declaration", "; ".join(mistakes))
    return tuple(found)


def is_name(value: Any) -> bool:
    """Whether it is a text that may name a context or a column: nothing in it needs quotes."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def is_table_name(value: Any) -> bool:
    """Whether it may name the table of a declared context: none of the replica's own."""
    reserved = value in RESERVED_TABLES or str(value).startswith(RESERVED_PREFIXES) or str(value).endswith("_search")
    return is_name(value) and not reserved


def _context(given: Mapping[str, Any], place: int, mistakes: Mistakes) -> Context:
    name = given.get("name", "")
    what = f"context {name}" if isinstance(name, str) and name else f"context number {place}"
    _check_members(what, given, _CONTEXT_MEMBERS, mistakes)
    name = _name(what, name, mistakes)
    if name in BUILT_IN:
        more = ": what a chain adds to products goes into attributes" if name == "product" else ""
        mistakes.append(f"{what}: is built in and cannot be declared{more}")
    table = _name(f"{what}, table", given.get("table", name), mistakes) if name or "table" in given else ""
    if table and not is_table_name(table):
        mistakes.append(f"{what}: table {table} is a name of the replica's own, name another with table = ...")
    keys = _columns(what, given, "keys", mistakes)
    values = _columns(what, given, "values", mistakes)
    names = [column.name for column in (*keys, *values) if column.name]
    mistakes += [f"{what}: column {twice} is declared twice" for twice in _twice(names)]
    if len(keys) > KEYS_MAX:
        mistakes.append(f"{what}: {len(keys)} keys, at most {KEYS_MAX}")
    if len(keys) + len(values) > COLUMNS_MAX:
        mistakes.append(f"{what}: {len(keys) + len(values)} columns, at most {COLUMNS_MAX}")
    search = _search(what, given.get("search", []), {c.name: c for c in (*keys, *values)}, mistakes)
    return Context(name, table, keys, values, search)


def _columns(what: str, given: Mapping[str, Any], part: str, mistakes: Mistakes) -> tuple[Column, ...]:
    tables = given.get(part)
    if not isinstance(tables, list) or not tables or not all(isinstance(each, dict) for each in tables):
        mistakes.append(f"{what}: needs {part} = [{{ name = ... }}, ...]")
        return ()
    return tuple(_column(what, each, mistakes, key=part == "keys") for each in tables)


def _column(context: str, given: Mapping[str, Any], mistakes: Mistakes, *, key: bool) -> Column:
    what = f"{context}, column {given.get('name', '')}".rstrip()
    _check_members(what, given, _COLUMN_MEMBERS, mistakes)
    name = _name(what, given.get("name", ""), mistakes)
    if name in RESERVED_COLUMNS:
        mistakes.append(f"{what}: is reserved: {', '.join(RESERVED_COLUMNS)}")
    kind = given.get("kind", "choice" if "choices" in given else "text")
    allowed = KEY_KINDS if key else KINDS
    if kind not in allowed:
        whose = "a key's kind" if key else "kind"
        mistakes.append(f"{what}: {whose} {kind!r} must be one of {', '.join(allowed)}")
        return Column(name)
    required = given.get("required", key)
    if not isinstance(required, bool) or (key and not required):
        mistakes.append(f"{what}: required must be {'true for a key' if key else 'true or false'}")
    _check_fitting(what, given, kind, mistakes)
    at_least, at_most = _bounds(what, given, kind, mistakes)
    column = Column(
        name,
        cast(Kind, kind),
        _chars_max(what, given, kind, mistakes, key=key),
        bool(required),
        _choices(what, given, kind, mistakes),
        None,
        at_least,
        at_most,
        _currency(what, given, kind, mistakes),
    )
    return _with_default(what, column, given.get("default"), mistakes)


def _check_fitting(what: str, given: Mapping[str, Any], kind: str, mistakes: Mistakes) -> None:
    """A member that means nothing for the kind is a mistake, not a wish to pass over."""
    for member, kinds in (
        ("max_chars", ("text", "json")),
        ("choices", ("choice",)),
        ("min", ("integer",)),
        ("max", ("integer",)),
        ("currency", ("amount",)),
    ):
        if member in given and kind not in kinds:
            mistakes.append(f"{what}: {member} is only for kind {' or '.join(kinds)}")


def _chars_max(what: str, given: Mapping[str, Any], kind: str, mistakes: Mistakes, *, key: bool) -> int:
    if kind in ("currency", "date"):
        return 3 if kind == "currency" else 10
    most = KEY_CHARS_MAX if key else JSON_CHARS_MAX if kind == "json" else TEXT_CHARS_MAX
    return _whole(what, "max_chars", given.get("max_chars", most), 1, most, mistakes)


def _bounds(what: str, given: Mapping[str, Any], kind: str, mistakes: Mistakes) -> tuple[int, int]:
    least, most = {"amount": (0, SEQ_MAX), "boolean": (0, 1)}.get(kind, (-SEQ_MAX, SEQ_MAX))
    if kind == "integer":
        least = _whole(what, "min", given.get("min", least), -SEQ_MAX, SEQ_MAX, mistakes)
        most = _whole(what, "max", given.get("max", most), -SEQ_MAX, SEQ_MAX, mistakes)
        if least > most:
            mistakes.append(f"{what}: min {least} is above max {most}")
    return least, most


def _choices(what: str, given: Mapping[str, Any], kind: str, mistakes: Mistakes) -> tuple[str, ...]:
    choices = given.get("choices", [])
    if kind != "choice":
        return ()
    texts = isinstance(choices, list) and all(isinstance(c, str) and 0 < len(c) <= KEY_CHARS_MAX for c in choices)
    if not texts or not 1 <= len(choices) <= CHOICES_MAX or _twice(choices) or any(c != c.strip() for c in choices):
        mistakes.append(
            f"{what}: choices must list 1 to {CHOICES_MAX} different texts of 1 to {KEY_CHARS_MAX} characters"
        )
        return ()
    return tuple(choices)


def _currency(what: str, given: Mapping[str, Any], kind: str, mistakes: Mistakes) -> str:
    currency = given.get("currency", "")
    if kind == "amount" and not (isinstance(currency, str) and _CURRENCY.fullmatch(currency)):
        mistakes.append(f"{what}: needs currency, an ISO 4217 code such as EUR")
    return currency if kind == "amount" and isinstance(currency, str) else ""


def _with_default(what: str, column: Column, default: Any, mistakes: Mistakes) -> Column:
    if default is None:
        return column
    value = int(default) if column.kind == "boolean" and isinstance(default, bool) else default
    problem = _unfit(column, value)
    if problem:
        mistakes.append(f"{what}: default {default!r} {problem}")
        return column
    return Column(
        column.name,
        column.kind,
        column.chars_max,
        column.required,
        column.choices,
        cast(Value, value),
        column.at_least,
        column.at_most,
        column.currency,
    )


def _unfit(column: Column, value: Any) -> str:
    """Why a column cannot have this default; empty if it can."""
    if column.kind in INTEGER_KINDS:
        if not isinstance(value, int) or isinstance(value, bool):
            forms = {"boolean": "true or false", "amount": "a whole number of minor units"}
            return f"must be {forms.get(column.kind, 'a whole number')}"
        return "" if column.at_least <= value <= column.at_most else "is out of bounds"
    if not isinstance(value, str) or not 0 < len(value) <= column.chars_max or value != value.strip():
        return f"must be a text of 1 to {column.chars_max} characters"
    if column.kind == "choice" and value not in column.choices:
        return "is none of the choices"
    if column.kind == "currency" and not _CURRENCY.fullmatch(value):
        return "is no ISO 4217 code"
    if column.kind == "date" and not _is_date(value):
        return "is no date such as 2026-12-24"
    return "cannot be given for kind json" if column.kind == "json" or "\0" in value else ""


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _search(what: str, names: Any, columns: Mapping[str, Column], mistakes: Mistakes) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or _twice(names):
        mistakes.append(f"{what}: search must list names of columns, each once")
        return ()
    for name in names:
        if name not in columns or columns[name].kind not in SEARCHABLE_KINDS:
            mistakes.append(f"{what}: search {name[:40]!r} is no column of kind {' or '.join(SEARCHABLE_KINDS)}")
    return tuple(names)


def _name(what: str, name: Any, mistakes: Mistakes) -> str:
    if not isinstance(name, str) or not is_name(name):
        mistakes.append(f"{what}: needs a name of 1 to 32 of a-z, 0-9 and _, a letter first and no _ last")
        return ""
    if name in SQL_WORDS:
        mistakes.append(f"{what}: {name} is a word of SQL, which a till could not type as a name")
    return name


def _whole(what: str, member: str, value: Any, least: int, most: int, mistakes: Mistakes) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        mistakes.append(f"{what}: {member} must be a whole number from {least} to {most}")
        return most
    return value


def _check_members(what: str, given: Mapping[str, Any], known: Collection[str], mistakes: Mistakes) -> None:
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            mistakes.append(f"{what}: unknown {name!r}" + (f", did you mean {close[0]!r}?" if close else ""))


def _twice(names: Collection[str] | Iterator[str]) -> list[str]:
    listed = list(names)
    return sorted({name for name in listed if listed.count(name) > 1})
