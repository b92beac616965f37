"""The bounded contexts: each is declared once; tables, codec, rules and digests follow from the declaration.

Two are built in (`BUILT_IN`). A chain declares more in a file (`storelink.contract.declared`); whoever composes a
process makes one registry of all (`BUILT_IN.with_declared`) and hands it on. A wire row is one flat tuple
`(seq, *keys, *values)` of texts, 63-bit integers and None, so that it can go to SQLite as it is.

The columns of a context may change over time: they may gain some at the end, and nothing else. What was agreed before
is kept as a record: JSON text of `[[name, kind], ...]`, the keys marked (`record_of`, `compare`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from storelink.contract.errors import ContractViolation
from storelink.contract.limits import JSON_CHARS_MAX, KEY_CHARS_MAX, SEQ_MAX, TEXT_CHARS_MAX

Value = str | int | None
Row = tuple[Value, ...]
Key = tuple[str, ...]
Kind = Literal["text", "choice", "currency", "schedule", "json", "integer", "amount", "boolean", "date"]
INTEGER_KINDS = ("integer", "amount", "boolean")
"""What travels and is stored as a 63-bit integer: an amount in minor units, a boolean as 0 or 1."""

SHOWN_MAX = 3
SHOWN_CHARS_MAX = 40
"""How many columns a message to a person names, and how much of each name."""


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

    @property
    def is_built_in(self) -> bool:
        return self.name in (PRODUCT.name, PRICE.name)

    def key_of(self, row: Row) -> Key:
        """The entity's key, in declared order."""
        return tuple(str(part) for part in row[1 : 1 + len(self.keys)])

    def values_of(self, row: Row) -> Row:
        return row[1 + len(self.keys) :]


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


class Contexts(Mapping[str, Context]):
    """What a process knows, by name: the built-in contexts, then the declared ones in their order; immutable."""

    def __init__(self, contexts: Iterable[Context]) -> None:
        self._by_name = {context.name: context for context in contexts}

    def with_declared(self, contexts: Iterable[Context]) -> Contexts:
        """
        Return these contexts and more; the same one again is no change.

        Raises:
            ContractViolation: a known name is declared otherwise.
        """
        added = {context.name: context for context in contexts}
        for name, context in added.items():
            if self._by_name.get(name, context) != context:
                raise ContractViolation("bad_declaration", f"{name} is declared otherwise already")
        return Contexts((self._by_name | added).values())

    @property
    def declared(self) -> tuple[Context, ...]:
        """Those that are not built in."""
        return tuple(context for context in self._by_name.values() if not context.is_built_in)

    def __getitem__(self, name: str) -> Context:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


BUILT_IN = Contexts((PRODUCT, PRICE))


_decode_record = msgspec.json.Decoder(list[tuple[str, str]]).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Same:
    """The columns are those of the record."""


@dataclass(frozen=True, slots=True)
class Gained:
    """The columns are those of the record, and `columns` behind them."""

    columns: tuple[Column, ...]

    @property
    def fill(self) -> Row:
        """What these columns hold in the rows that there are."""
        return tuple(column.default for column in self.columns)


@dataclass(frozen=True, slots=True)
class Differs:
    """The record cannot become these columns; `reason` says which, for a person."""

    reason: str


def record_of(context: Context) -> str:
    """What a table must remember of its context, to tell later what has changed."""
    keys = [(c.name, f"key:{_kind(c)}") for c in context.keys]
    return _encode([*keys, *((c.name, _kind(c)) for c in context.values)]).decode()


def names_of(record: str) -> tuple[str, ...]:
    """The columns of a record, keys first."""
    return tuple(name for name, _ in _decode_record(record))


def compare(record: str, context: Context) -> Same | Gained | Differs:
    """What a declaration makes of the columns that were recorded of it."""
    old = _decode_record(record)
    new = _decode_record(record_of(context))
    if new == old:
        return Same()
    before, after = dict(old), dict(new)
    lost = [name for name in before if name not in after]
    if lost:
        return Differs(f"the declaration lacks {_columns(lost)}: none can be removed or renamed")
    for name, kind in old:
        if after[name] != kind:
            return Differs(f"column {name} is of kind {after[name]} and was {kind}: no kind can be changed")
    if new[: len(old)] != old:
        return Differs("the order of the columns was changed: further ones go to the end")
    gained = context.values[len(old) - len(context.keys) :]
    bare = [c.name for c in gained if c.required and c.default is None]
    if bare:
        return Differs(f"the rows that there are need a default for the required {_columns(bare)}")
    return Gained(gained)


def columns_differ(context: Context, found: Sequence[str]) -> str:
    """Say how the columns of HQ's message differ from the declared ones."""
    extra = [name for name in found if name not in context.columns]
    if extra:
        return f"HQ's {context.name} has {_columns(extra)} that the declaration here lacks"
    lacking = [name for name in context.columns if name not in found]
    if lacking:
        return f"HQ's {context.name} lacks {_columns(lacking)} that the declaration here has"
    return f"HQ's {context.name} has its columns in another order than declared here"


def _kind(column: Column) -> str:
    return f"{column.kind}:{column.currency}" if column.currency else column.kind


def _columns(names: Sequence[str]) -> str:
    """Names for a person; they may come from an untrusted message."""
    shown = ", ".join(repr(name)[1:-1][:SHOWN_CHARS_MAX] for name in names[:SHOWN_MAX])
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return f"{'column' if len(names) == 1 else 'columns'} {shown}{more}"
