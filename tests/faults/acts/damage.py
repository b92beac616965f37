"""A damaged replica: how the product finds it, and what tills would see of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from storelink.contract.contexts import BUILT_IN
from storenode.errors import ReplicaDamaged
from storenode.replica.verify import Damaged, Result, Verified, prove
from storenode.replica.writer import Replica
from tests.faults.acts.selling import STREAMS
from tests.faults.acts.stage import Say
from tests.faults.acts.stories import OLD_EPOCH, Story, story
from tests.oracle.history import Row, State, digest_of

ENTITIES = 150

HEARTBEATS = "HQ's word"
"""A position, epoch or digest that HQ never had: it shows when HQ next says where it stands, as `heal` must show."""


def worn_stories() -> list[Story]:
    return [story(str(s), 3, entities=ENTITIES, sets=4, epoch=OLD_EPOCH) for s in STREAMS]


def found_by_the_product(path: Path) -> str:
    """How a daemon finds that its replica is damaged, by the same steps; empty: it does not."""
    try:
        replica = Replica.open(path, ("all",), BUILT_IN)
        try:
            return _proven(path, replica)
        finally:
            replica.connection.close()
    except ReplicaDamaged:
        return "opening"


def _proven(path: Path, replica: Replica) -> str:
    results: list[Result] = []
    prove(path, dict.fromkeys(STREAMS, 0), results.append)
    for result in results:
        match result:
            case Damaged():
                return "file"
            case Verified(_, False, _):
                return "digest"
    while not replica.is_search_ready():
        replica.feed_search()
    if not replica.check_search():
        return "search"
    return "" if all(_position(replica.connection, each) in each.ends for each in worn_stories()) else HEARTBEATS


def wrong_for_a_till(path: Path, told: list[Story]) -> list[str]:
    """What a till gets to see that is not what HQ had at the end of the stories; any way of looking it up counts."""
    wrong: list[str] = []
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            states: dict[str, State] = {}
            for each in told:
                position = _position(db, each)
                states[each.name] = each.state_at(position)
            for name, state in states.items():
                wrong += _wrong_rows(db, name, state)
            wrong += _wrong_views(db, states["product/all"], states["price/all"])
    except sqlite3.DatabaseError as error:
        wrong.append(f"error: {error}")
    return sorted(set(wrong))


def _position(db: sqlite3.Connection, told: Story) -> int:
    """Where a stream says that it stands; -1 for what HQ never had."""
    epoch, seq, digest = db.execute(
        "SELECT epoch, position, digest FROM streams WHERE stream = ?", (told.name,)
    ).fetchone()
    if epoch != told.epoch or seq not in told.ends or digest != digest_of(told.state_at(seq)):
        return -1
    return int(seq)


def _wrong_rows(db: sqlite3.Connection, name: str, state: State) -> list[str]:
    context = BUILT_IN[name.partition("/")[0]]
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
            sql = f"SELECT sku, name, amount_minor FROM catalog WHERE {column} = ?"
            if db.execute(sql, (value,)).fetchall() != expected:
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


def examine(directory: Path, say: Say, *, blind: bool = False) -> None:
    """Tell how a damage is found, or else what it makes tills see; `blind` is a planted fault: nothing looks for it."""
    path = directory / "replica.db"
    if blind:
        Replica.open(path, ("all",), BUILT_IN).connection.close()
    found = "" if blind else found_by_the_product(path)
    say(found=found, wrong=[] if found else wrong_for_a_till(path, worn_stories()))
