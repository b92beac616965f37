"""The acts of damaged files: wearing a replica in, and finding out what is wrong with one by the product's own means."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from contract.contexts import CONTEXTS
from storenode import readers
from storenode.errors import ReplicaDamaged, StorenodeError
from storenode.replica import Replica
from tests.torture.history import OLD_EPOCH, Row, State, Story, story
from tests.torture.selling import STREAMS
from tests.torture.stage import Say

ENTITIES = 150
HIDDEN = 1_700_000_001
"""A moment at which every price of the stories holds."""


def worn_stories() -> list[Story]:
    return [story(str(s), 3, entities=ENTITIES, sets=4, epoch=OLD_EPOCH) for s in STREAMS]


def found_by_the_product(path: Path) -> str:
    """How the product finds that a replica is damaged, as a start and a nightly scan would; empty: it does not."""
    try:
        Replica(path, ("all",)).connection.close()
    except ReplicaDamaged:
        return "opening"
    except StorenodeError as error:
        return f"opening, as {type(error).__name__}"
    try:
        if readers.streams(path) != sorted(STREAMS):
            return "streams"
        return "" if all(readers.scan(path, stream).ok for stream in STREAMS) else "digest"
    except StorenodeError as error:
        return f"scan, as {type(error).__name__}"


def wrong_for_a_till(path: Path, told: list[Story]) -> list[str]:
    """What a till gets to see that is not what HQ had at the end of the stories; any way of looking it up counts."""
    wrong: list[str] = []
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            states = {each.name: each.state_at(each.ends[-1]) for each in told}
            for each in told:
                found = db.execute("SELECT epoch, position FROM streams WHERE stream = ?", (each.name,)).fetchall()
                wrong += [] if found == [(each.epoch, each.ends[-1])] else ["position"]
            for name, state in states.items():
                wrong += _wrong_rows(db, name, state)
            wrong += _wrong_views(db, states["product/all"], states["price/all"])
    except sqlite3.DatabaseError as error:
        wrong.append(f"error: {error}")
    return sorted(set(wrong))


def _wrong_rows(db: sqlite3.Connection, name: str, state: State) -> list[str]:
    context = CONTEXTS[name.partition("/")[0]]
    columns, keys = ", ".join(context.columns), " AND ".join(f"{k} = ?" for k in context.key_names)
    table = db.execute(f"SELECT {columns} FROM {context.table} NOT INDEXED WHERE scope = 'all'").fetchall()
    wrong = [] if sorted(table, key=str) == sorted(state.values(), key=str) else [f"{context.table} as a whole"]
    for key, row in state.items():
        found = db.execute(f"SELECT {columns} FROM {context.table} WHERE {keys} AND scope = 'all'", key).fetchall()
        if found != [row]:
            wrong.append(f"{context.table} by key")
    return wrong


def _wrong_views(db: sqlite3.Connection, products: State, prices: State) -> list[str]:
    wrong: list[str] = []
    for row in products.values():
        sku, gtin, name = row[1:4]
        amount = _amount(prices.get((str(sku), "regular")))
        expected = [(sku, name, amount)]
        lookups: dict[str, tuple[str, Any]] = {"catalog by sku": ("sku", sku)}
        if gtin is not None:
            lookups["catalog by gtin"] = ("gtin", gtin)
        for what, (column, value) in lookups.items():
            if db.execute(f"SELECT sku, name, amount_minor FROM catalog WHERE {column} = ?", (value,)).fetchall() != expected:
                wrong.append(what)
        word = str(name).split()[1]
        hits = [s for (s,) in db.execute("SELECT sku FROM product_search WHERE product_search MATCH ?", (f'"{word}"',))]
        if sorted(hits) != sorted(str(r[1]) for r in products.values() if word in str(r[3]).split()):
            wrong.append("search")
    for row in prices.values():
        found = db.execute("SELECT amount_minor FROM current_prices WHERE sku = ?", (row[1],)).fetchall()
        if found != [(_amount(row),)]:
            wrong.append("current_prices by sku")
    return wrong


def _amount(price: Row | None) -> int | None:
    return None if price is None else int(str(price[-1]).rstrip("]").rpartition(",")[2])


def examine(directory: Path, say: Say) -> None:
    """Tell how a damage is found, or else what it makes tills see."""
    path = directory / "replica.db"
    found = found_by_the_product(path)
    say(found=found, wrong=[] if found else wrong_for_a_till(path, worn_stories()))
