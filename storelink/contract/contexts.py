"""The bounded contexts: each declared once; tables, codec, rules and digests follow from it.

Two are built in. A chain declares further ones in a file (`storelink.contract.declared`); whoever composes a process
puts them into `CONTEXTS`, once, before anything else asks. A wire row is one flat tuple `(seq, *keys, *values)`: text,
63-bit integers or None, nothing else, so that it can go to SQLite as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from storelink.contract.errors import ContractViolation
from storelink.contract.limits import JSON_CHARS_MAX, KEY_CHARS_MAX, SEQ_MAX, TEXT_CHARS_MAX

Value = str | int | None
Row = tuple[Value, ...]
Key = tuple[str, ...]
Kind = Literal["text", "choice", "currency", "schedule", "json", "integer", "amount", "boolean", "date"]
INTEGER_KINDS = ("integer", "amount", "boolean")
"""What travels and is stored as a 63-bit integer: an amount in minor units, a boolean as 0 or 1."""


@dataclass(frozen=True, slots=True)
class Column:
    """
    One typed column. `choices` only for kind `choice`; `at_least` and `at_most` only for integers.

    `default`, as it travels, is what a new entity gets where a command does not name the column.
    `currency`: of a column of kind `amount`, ISO 4217; at HQ amounts are typed as decimal numbers in it.
    """

    name: str
    kind: Kind = "text"
    chars_max: int = TEXT_CHARS_MAX
    required: bool = False
    choices: tuple[str, ...] = ()
    default: Value = None
    at_least: int = -SEQ_MAX
    at_most: int = SEQ_MAX
    currency: str = ""

    @property
    def is_integer(self) -> bool:
        return self.kind in INTEGER_KINDS


@dataclass(frozen=True, slots=True)
class Context:
    """A bounded context: its key columns, value columns and the table that readers see.

    `search`: columns that a store indexes as words, in the table `{table}_search`; only of declared contexts.
    """

    name: str
    table: str
    keys: tuple[Column, ...]
    values: tuple[Column, ...]
    search: tuple[str, ...] = ()
    columns: tuple[str, ...] = field(init=False)

    def __hash__(self) -> int:
        return hash(self.name)  # caches are asked by context for every message

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

BUILT_IN = (PRODUCT, PRICE)


class Contexts(Mapping[str, Context]):
    """The contexts that this process knows, by name: the built-in ones, then the declared ones in their order."""

    def __init__(self, contexts: Iterable[Context]) -> None:
        self._by_name = {context.name: context for context in contexts}

    def declare(self, contexts: Iterable[Context]) -> None:
        """
        Add contexts; the same one again is no change.

        Raises:
            ContractViolation: a known name is declared otherwise; nothing is added.
        """
        added = {context.name: context for context in contexts}
        for name, context in added.items():
            if self._by_name.get(name, context) != context:
                raise ContractViolation("bad_declaration", f"{name} is declared otherwise already")
        self._by_name |= added

    @property
    def declared(self) -> tuple[Context, ...]:
        """Those that are not built in."""
        return tuple(context for context in self._by_name.values() if context not in BUILT_IN)

    def __getitem__(self, name: str) -> Context:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


CONTEXTS = Contexts(BUILT_IN)
