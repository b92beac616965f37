"""The part of a stream that a feed speaks for: `--where kind=regular`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from hq.core import edits
from hq.errors import BadField
from storelink.contract.contexts import Context, Key


@dataclass(frozen=True, slots=True)
class Part:
    """The entities whose key has, in each column of `values`, one of the values there; all of them if there is none.

    Attributes:
        names: the names of the key columns.
        values: index of a key column -> the values that it may have.
    """

    names: Sequence[str] = ()
    values: Mapping[int, frozenset[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether it is less than all of the stream."""
        return bool(self.values)

    def __str__(self) -> str:
        return " ".join(f"{self.names[at]}={' or '.join(sorted(values))}" for at, values in self.values.items())

    def misfit(self, key: Key) -> str | None:
        """Name of the first key column by which an entity lies outside; None if it lies inside."""
        return next((self.names[at] for at, values in self.values.items() if key[at] not in values), None)

    def holds_all(self, keys: Collection[Key]) -> bool:
        """Like `misfit` for many at once, column by column."""
        return all(values.issuperset(map(itemgetter(at), keys)) for at, values in self.values.items())

    def of(self, keys: Collection[Key]) -> Collection[Key]:
        """The keys that lie inside."""
        for at, values in self.values.items():
            keys = [key for key in keys if key[at] in values]
        return keys


ALL_ROWS = Part()


def part_of(context: Context, where: Mapping[str, str | Sequence[str]]) -> Part:
    """
    Read which rows a feed speaks for.

    Args:
        where: key column -> the value, or the values, that it may have.

    Raises:
        BadField: field `where`; no key column of the context, or a value that the column cannot hold.
    """
    names = context.key_names
    hint = f"key columns: {', '.join(names)}"
    values: dict[int, frozenset[str]] = {}
    for name, given in where.items():
        if name not in names:
            raise BadField("where", f"{name[:80]!r} is no key column of {context.name}", hint=hint)
        at = names.index(name)
        texts = [text.strip() for text in ([given] if isinstance(given, str) else given)]
        if not all(texts) or not texts:
            raise BadField("where", f"{name} has no value", hint=hint)
        try:
            values[at] = frozenset(str(edits.checked(context.keys[at], text)) for text in texts)
        except BadField as error:
            raise BadField("where", f"{name} {error.problem}", hint=hint) from None
    return Part(names, values)
