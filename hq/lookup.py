"""Questions about one master: an entity, the prices of a SKU, products by their words, all rows as a feed.

Everything is read from the master that is open, and nothing is written.
"""

from __future__ import annotations

import difflib
import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hq.core import edits
from hq.core.feed_export import FeedDocument, feed_rows
from hq.core.samples import steps_document
from hq.errors import BadField
from hq.master.context_migration import check_known
from hq.master.rows import statements
from hq.master.store import Master
from storelink.contract import schedule
from storelink.contract.contexts import PRICE, PRODUCT, Context, Key, Row
from storelink.contract.precedence import Candidate, Line, candidates
from storelink.contract.streams import SCOPE_ALL, Stream

SEARCHED = ("sku", "gtin", "name")
"""The columns of a product in which words are looked for."""

ROWS_PER_READ = 10_000


@dataclass(frozen=True, slots=True)
class Prices:
    """
    The prices of a SKU that count for a scope, at one time.

    Attributes:
        at_s: seconds since 1970.
        candidates: every step of every line of the scope and of "all", the one in force first; by the same precedence
            as in a store that follows these two scopes and has no override.
        other_scopes: further scopes that have price lines for the SKU.
    """

    sku: str
    scope: str
    at_s: int
    candidates: tuple[Candidate, ...]
    other_scopes: tuple[str, ...]

    @property
    def in_force(self) -> Candidate | None:
        """The price in force; None if there is none."""
        return next((each for each in self.candidates if each.won), None)


@dataclass(frozen=True, slots=True)
class Found:
    """The products that a search found, by SKU, as `Catalog.get` gives them; `more`: there are others."""

    products: tuple[dict[str, Any], ...]
    more: bool


def existing(master: Master, stream: Stream) -> Stream:
    """The stream, if HQ has it. Raises BadField: it does not; with the nearest scope that it has."""
    check_known(master.query, stream)
    scopes = [row.stream.scope for row in master.streams() if row.stream.context == stream.context]
    if stream.scope not in scopes:
        close = difflib.get_close_matches(stream.scope, scopes, n=1)
        hint = f"did you mean {close[0]}?" if close else "hq status lists the streams"
        raise BadField("scope", f"HQ has no stream {stream}", hint=hint)
    return stream


def key_given(context: Context, key: str | Sequence[str]) -> Key:
    """A key as it was named: columns with a default may be left out at the end. Raises BadField."""
    given = (key,) if isinstance(key, str) else tuple(key)
    complete = given + tuple(str(c.default) for c in context.keys[len(given) :] if c.default is not None)
    if len(complete) != len(context.keys):
        raise BadField("key", f"has {len(given)} values", hint=f"name {' '.join(context.key_names).upper()}")
    return edits.key_of(context, dict(zip(context.key_names, complete, strict=True)))


def row_of(master: Master, stream: Stream, key: Key) -> dict[str, Any] | None:
    """One live row, as `Catalog.get` gives it; None: there is none."""
    found = master.stored(existing(master, stream), key)
    return None if found is None or found.deleted else _document(stream, found.row)


def prices_of(master: Master, sku: str, scope: str, at_s: int, kind: str | None) -> Prices:
    """The prices of a SKU for a scope, in one snapshot; with `kind`, only those of that kind."""
    with master.reading():
        lines, other_scopes = [], []
        for scope_of in (row.stream.scope for row in master.streams() if row.stream.context == PRICE):
            rows = master.query(f"{_live(PRICE)} AND sku = ?", (scope_of, sku))
            if scope_of in (scope, SCOPE_ALL):
                lines += [_line(scope_of, row) for row in rows if kind in (None, row[2])]
            elif rows:
                other_scopes.append(scope_of)
    return Prices(sku, scope, at_s, tuple(candidates(lines, at_s)), tuple(other_scopes))


def search(master: Master, stream: Stream, text: str, limit: int) -> Found:
    """Products with every word of the text in one of SEARCHED; accents and case do not count. Reads all products."""
    words = folded(text).split()
    found: list[dict[str, Any]] = []
    columns = [PRODUCT.columns.index(name) for name in SEARCHED]
    if not words:
        raise BadField("text", "is empty", hint="name a word, or the beginning of one")
    with master.reading():
        existing(master, stream)
        for row in _live_in_order(master, stream):
            seen = folded("\n".join(str(row[index]) for index in columns if row[index] is not None))
            if all(word in seen for word in words):
                if len(found) == limit:
                    return Found(tuple(found), more=True)
                found.append(_document(stream, row))
    return Found(tuple(found), more=False)


def exported(master: Master, stream: Stream) -> Iterator[FeedDocument]:
    """Every live row as rows of a feed, by key; within one snapshot of the master."""
    for row in _live_in_order(master, stream):
        yield from feed_rows(stream.context, row)


def folded(text: str) -> str:
    """Without accents and case."""
    if text.isascii():
        return text.lower()
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).casefold()


def _live(context: Context) -> str:
    return statements(context).live


def _live_in_order(master: Master, stream: Stream) -> Iterator[Row]:
    """Live rows by key, ROWS_PER_READ at a time, so that millions need little memory; the caller holds a snapshot."""
    names = ", ".join(f"[{name}]" for name in stream.context.key_names)
    marks = ", ".join("?" for _ in stream.context.keys)
    sql = f"{_live(stream.context)} AND ({names}) > ({marks}) ORDER BY {names} LIMIT {ROWS_PER_READ}"
    last: Key = ("",) * len(stream.context.keys)
    while rows := master.query(sql, (stream.scope, *last)):
        yield from rows
        last = stream.context.key_of(rows[-1])


def _line(scope: str, row: Row) -> Line:
    seq, _, kind, currency, steps = row
    rank = 0 if scope == SCOPE_ALL else 1
    return Line(scope, rank, str(kind), str(currency), schedule.load(str(steps)), int(str(seq)))


def _document(stream: Stream, row: Row) -> dict[str, Any]:
    """The row by names: `scope`, `seq`, the key, the values; a boolean, an object or steps where the kind is one."""
    document: dict[str, Any] = {"scope": stream.scope} | dict(zip(stream.context.columns, row, strict=True))
    for column in stream.context.values:
        value = document[column.name]
        if value is not None and column.kind == "schedule":
            document[column.name] = steps_document(value)
        elif value is not None and column.kind == "json":
            document[column.name] = json.loads(value)
        elif value is not None and column.kind == "boolean":
            document[column.name] = bool(value)
    return document
