"""The bounded contexts: each declared once, here; tables, codec, rules and digests follow from it.

A wire row is one flat tuple `(seq, *keys, *values)`: text, 63-bit integers or None, nothing else,
so that it can go to SQLite as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from contract.limits import JSON_CHARS_MAX, KEY_CHARS_MAX, TEXT_CHARS_MAX

Value = str | int | None
Row = tuple[Value, ...]
Key = tuple[str, ...]
Kind = Literal["text", "choice", "currency", "schedule", "json"]


@dataclass(frozen=True, slots=True)
class Column:
    """One typed column. `choices` only for kind `choice`; `default` fills a key left out by a command."""

    name: str
    kind: Kind = "text"
    chars_max: int = TEXT_CHARS_MAX
    required: bool = False
    choices: tuple[str, ...] = ()
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """A bounded context: its key columns, value columns and the table that readers see."""

    name: str
    table: str
    keys: tuple[Column, ...]
    values: tuple[Column, ...]
    columns: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = ("seq", *(c.name for c in self.keys), *(c.name for c in self.values))
        object.__setattr__(self, "columns", names)

    @property
    def key_names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.keys)

    @property
    def value_names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.values)

    def key_of(self, row: Row) -> Key:
        """The entity's key, in declared order."""
        return tuple(str(part) for part in row[1 : 1 + len(self.keys)])

    def values_of(self, row: Row) -> Row:
        return row[1 + len(self.keys) :]

    def changed(self, before: Row | None, after: Row) -> tuple[str, ...]:
        """Names of the value columns in which two rows differ; for a new row, those that are set."""
        new = self.values_of(after)
        old: Row = (None,) * len(new) if before is None else self.values_of(before)
        return tuple(n for n, a, b in zip(self.value_names, old, new, strict=True) if a != b)


PRODUCT = Context(
    name="product",
    table="products",
    keys=(Column("sku", chars_max=KEY_CHARS_MAX, required=True),),
    values=(
        Column("gtin", chars_max=KEY_CHARS_MAX),
        Column("name"),
        Column("description"),
        Column("brand"),
        Column("department"),
        Column("category"),
        Column("product_type"),
        Column("pack_size"),
        Column("uom"),
        Column("manufacturer"),
        Column("status"),
        Column("attributes", kind="json", chars_max=JSON_CHARS_MAX),
    ),
)

PRICE = Context(
    name="price",
    table="prices",
    keys=(
        Column("sku", chars_max=KEY_CHARS_MAX, required=True),
        Column(
            "kind",
            kind="choice",
            required=True,
            choices=("regular", "promotion", "clearance"),
            default="regular",
        ),
    ),
    values=(
        Column("currency", kind="currency", chars_max=3, required=True),
        Column("schedule", kind="schedule", chars_max=JSON_CHARS_MAX, required=True),
    ),
)

CONTEXTS: Mapping[str, Context] = {c.name: c for c in (PRODUCT, PRICE)}
