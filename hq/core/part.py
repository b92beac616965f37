"""The part of a stream that a feed speaks for: `--where kind=regular`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from hq.core import edits
from hq.errors import BadField
from storelink.contract.contexts import Context, Key


@dataclass(frozen=True, slots=True)
class Part:
    """The entities whose key has, in each column of `values`, one of the values there; all of them if there is none.

    `values` goes by the column's index in the key.
    """

    names: Sequence[str] = ()
    values: Mapping[int, frozenset[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether it is less than the whole stream."""
        return bool(self.values)

    def __str__(self) -> str:
        return " ".join(f"{self.names[at]}={' or '.join(sorted(values))}" for at, values in self.values.items())

    def misfit(self, key: Key) -> str | None:
        """Name of the first key column by which an entity lies outside; None if it lies inside."""
        return next((self.names[at] for at, values in self.values.items() if key[at] not in values), None)

    def holds_all(self, keys: Collection[Key]) -> bool:
        """Like `misfit` for many at once, by whole columns."""
        return all(values.issuperset(map(itemgetter(at), keys)) for at, values in self.values.items())

    def of(self, keys: Collection[Key]) -> Collection[Key]:
        """The keys that lie inside."""
        for at, values in self.values.items():
            keys = [key for key in keys if key[at] in values]
        return keys


WHOLE = Part()


def parse_part(pairs: Iterable[str], context: Context) -> Part:
    """
    Read `column=value` pairs; a column that is named twice may have either value.

    Raises:
        BadField: no pair, no key column of the context, or a value that the column cannot hold.
    """
    names, values = context.key_names, dict[int, set[str]]()
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise BadField("--where", f"{pair[:80]!r} is not COLUMN=VALUE", hint=_hint(context))
        if name not in names:
            raise BadField("--where", f"{name[:80]!r} is no key column of {context.name}", hint=_hint(context))
        if not text.strip():
            raise BadField("--where", f"{name} has no value", hint=_hint(context))
        at = names.index(name)
        try:
            value = edits.checked(context.keys[at], text.strip())
        except BadField as error:
            raise BadField("--where", f"{name} {error.problem}", hint=_hint(context)) from None
        values.setdefault(at, set()).add(str(value))
    return Part(names, {at: frozenset(each) for at, each in values.items()})


def _hint(context: Context) -> str:
    return f"key columns: {', '.join(context.key_names)}"
