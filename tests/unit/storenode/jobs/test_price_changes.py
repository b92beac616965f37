"""Price changes: every price that changed is found, whatever changed it, and no other; none of them is lost."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.rows import EMPTY
from storelink.contract.streams import Stream
from storenode.errors import ReplicaMissing
from storenode.jobs.price_changes import ChangesFound, PriceChanges, opened, price_changes_path
from storenode.outbox.override_copy import OverrideCopy
from storenode.outbox.overrides import put, withdraw
from storenode.outbox.store import Outbox
from storenode.replica.writer import Replica

NOW_S = 1_800_000_000
ALL, WEST = Stream.parse("price/all", BUILT_IN), Stream.parse("price/zone-west", BUILT_IN)
SCOPES = ("all", "zone-west")
Steps = list[tuple[int, int | None, int]]


@dataclass
class Shop:
    """A replica, and what its labels show: each is what the hook was notified of last."""

    directory: Path
    replica: Replica = field(init=False)
    price_changes: PriceChanges = field(init=False)
    labels: dict[str, int | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.replica = Replica.open(self.directory / "replica.db", SCOPES, BUILT_IN)
        db = self.directory / "replica.db"
        self.price_changes = PriceChanges(price_changes_path(db), db)

    def put(
        self,
        stream: Stream,
        rows: Sequence[tuple[str, str, Steps]] = (),
        gone: Sequence[tuple[str, str]] = (),
        *,
        replace: bool = False,
        epoch: str = "e",
    ) -> None:
        at = 0 if replace else self.replica.state(stream).position
        wire: list[Row] = [
            (at + n, sku, kind, "EUR", str([list(s) for s in steps]).replace(" ", "").replace("None", "null"))
            for n, (sku, kind, steps) in enumerate(rows, 1)
        ]
        at += len(rows)
        deleted: list[Row] = [(at + n, *key) for n, key in enumerate(gone, 1)]
        self.replica.apply(
            stream,
            epoch=epoch,
            position=at + len(gone),
            digest=EMPTY,
            head_seq=at + len(gone),
            batches=[(wire, deleted)],
            replace=replace,
            wall_ms=NOW_S * 1000,
        )

    def look(self, at_s: int = 0, *, all_prices: bool = False) -> ChangesFound:
        return self.price_changes.find(NOW_S + at_s, hook=True, hq=True, all_prices=all_prices)

    def notify(self) -> dict[str, int | None]:
        """Deliver what is pending; returns the amounts."""
        pending = self.price_changes.pending_for_hook(10_000)
        self.price_changes.mark_delivered(pending)
        found = {change.sku: change.price["amount_minor"] for change in pending}
        self.labels |= found
        return found

    def changes(self, at_s: int = 0) -> dict[str, int | None]:
        self.look(at_s)
        return self.notify()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    shop.put(WEST)
    yield shop
    shop.replica.connection.close()


def always(amount: int) -> Steps:
    return [(NOW_S - 1_000, None, amount)]


def test_nobody_is_notified_of_a_bootstrap_but_of_what_changes_afterwards(shop: Shop) -> None:
    shop.put(ALL, [(str(n), "regular", always(n)) for n in range(1, 50)])
    assert shop.look() == ChangesFound(0, None)
    assert (shop.notify(), shop.price_changes.pending_for_hq(9)) == ({}, (0, []))
    shop.put(ALL, [("7", "regular", always(70)), ("new", "regular", always(5))])
    assert shop.look() == ChangesFound(2, None)
    assert shop.price_changes.pending_for_hq(1) == (2, ["7"])
    assert shop.notify() == {"7": 70, "new": 5}


def test_before_the_replica_is_complete_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    price_changes = PriceChanges(tmp_path / "changes", tmp_path / "replica.db")
    with pytest.raises(ReplicaMissing):
        price_changes.find(NOW_S, hook=True, hq=False)
    replica = Replica.open(tmp_path / "replica.db", SCOPES, BUILT_IN)
    assert price_changes.find(NOW_S, hook=True, hq=False) == ChangesFound(0, None, waits=True)
    replica.connection.close()


def test_the_first_look_can_wait_for_every_scope(tmp_path: Path) -> None:
    """Else the prices of a zone that comes a second later would all count as changes."""
    shop = Shop(tmp_path)
    shop.put(ALL, [("1", "regular", always(1))])
    assert shop.price_changes.find(NOW_S, hook=True, hq=False, wait_for_all=True).waits
    assert not shop.price_changes.find(NOW_S, hook=True, hq=False, wait_for_all=False).waits
    shop.replica.connection.close()


def test_a_promotion_is_found_when_it_starts_and_when_it_ends_and_the_look_says_when(shop: Shop) -> None:
    shop.put(ALL, [("1", "regular", always(300)), ("1", "promotion", [(NOW_S + 60, NOW_S + 90, 200)])])
    assert shop.look() == ChangesFound(0, NOW_S + 60)
    assert shop.look(59) == ChangesFound(0, NOW_S + 60)
    assert shop.look(60) == ChangesFound(1, NOW_S + 90)
    assert shop.notify() == {"1": 200}
    assert shop.look(90) == ChangesFound(1, None)
    assert shop.notify() == {"1": 300}


def test_a_promotion_over_between_two_looks_changed_nothing(shop: Shop) -> None:
    shop.put(ALL, [("1", "regular", always(300)), ("1", "promotion", [(NOW_S + 60, NOW_S + 90, 200)])])
    shop.look()
    assert shop.changes(100) == {}


def test_a_price_published_for_later_is_found_when_it_holds(shop: Shop) -> None:
    shop.put(ALL, [("1", "regular", always(300))])
    shop.look()
    shop.put(ALL, [("1", "regular", [(NOW_S - 1_000, NOW_S + 60, 300), (NOW_S + 60, None, 310)])])
    assert shop.changes(30) == {}
    assert shop.changes(61) == {"1": 310}


def test_a_price_that_arrives_after_its_start_is_found_at_once(shop: Shop) -> None:
    shop.put(ALL, [("1", "regular", always(300))])
    shop.look()
    shop.put(ALL, [("1", "promotion", [(NOW_S - 500, None, 200)])])
    assert shop.changes() == {"1": 200}


def test_a_deleted_line_is_a_change_and_a_price_that_is_gone_is_found_as_none(shop: Shop) -> None:
    shop.put(ALL, [("1", "regular", always(300)), ("1", "promotion", always(200)), ("2", "regular", always(5))])
    shop.look()
    shop.put(ALL, gone=[("1", "promotion")])
    assert shop.changes() == {"1": 300}
    shop.put(ALL, gone=[("1", "regular")])
    assert shop.changes() == {"1": None}
    assert shop.changes() == {}
    shop.put(ALL, [("1", "regular", always(300))])
    assert shop.changes() == {"1": 300}


def test_a_narrower_scope_that_takes_over_is_a_change_and_one_that_loses_is_none(shop: Shop) -> None:
    shop.put(ALL, [("1", "regular", always(300))])
    shop.look()
    shop.put(WEST, [("1", "regular", always(250))])
    assert shop.changes() == {"1": 250}
    shop.put(ALL, [("1", "regular", always(299))])
    assert shop.changes() == {}


def test_a_price_of_the_stores_own_is_found_when_it_is_set_withdrawn_and_over(shop: Shop) -> None:
    shop.put(ALL, [("1", "regular", always(300)), ("2", "regular", always(5))])
    shop.look()
    with Outbox(shop.directory / "outbox.db") as outbox:
        copy = OverrideCopy(outbox.path, shop.replica, "store-7")

        def own(sku: str, amount: int, until_s: int, at_s: int) -> None:
            put(outbox, sku, amount, "EUR", NOW_S + until_s, "test", (NOW_S + at_s) * 1000)
            copy.step(0, woken=True)

        own("1", 111, 50, 0)
        assert shop.look() == ChangesFound(1, NOW_S + 50)
        assert shop.notify() == {"1": 111}
        own("1", 112, 50, 10)
        own("2", 7, 500, 10)
        assert shop.changes(10) == {"1": 112, "2": 7}
        assert shop.changes(20) == {}
        withdraw(outbox, "2", (NOW_S + 30) * 1000)
        copy.step(0, woken=True)
        assert shop.changes(30) == {"2": 5}
        assert shop.changes(50) == {"1": 300}


def test_a_rebuild_changes_what_differs_and_not_everything(shop: Shop) -> None:
    shop.put(ALL, [(str(n), "regular", always(n)) for n in range(1, 50)])
    shop.look()
    shop.put(ALL, [(str(n), "regular", always(n if n != 3 else 33)) for n in range(1, 49)], replace=True, epoch="f")
    assert shop.changes() == {"3": 33, "49": None}


def test_a_rebuild_to_the_same_position_changes_what_differs(shop: Shop) -> None:
    """Rows that were not HQ's are fetched anew: same epoch, same position, other rows."""
    shop.put(ALL, [("1", "regular", always(1)), ("2", "regular", always(2))])
    shop.look()
    shop.replica.connection.execute("UPDATE streams SET rebuild_due = 'scan' WHERE stream = 'price/all'")
    shop.put(ALL, [("1", "regular", always(1)), ("2", "regular", always(22))], replace=True)
    assert shop.changes() == {"2": 22}


def test_a_replica_that_was_moved_away_is_waited_for(shop: Shop) -> None:
    shop.put(ALL, [("1", "regular", always(1)), ("2", "regular", always(2))])
    shop.look()
    shop.replica.connection.close()
    for part in shop.directory.glob("replica.db*"):
        if "price-changes" not in part.name:
            part.rename(part.with_name("away" + part.name))
    shop.replica = Replica.open(shop.directory / "replica.db", SCOPES, BUILT_IN)
    shop.put(WEST)
    assert shop.look().waits, "the other stream is not here yet"
    shop.put(ALL, [("1", "regular", always(1)), ("2", "regular", always(22))])
    assert shop.changes() == {"2": 22}


def test_a_clock_set_back_brings_the_price_of_then_back(shop: Shop) -> None:
    shop.put(ALL, [("1", "regular", always(300)), ("1", "promotion", [(NOW_S + 60, None, 200)])])
    shop.look()
    assert shop.changes(60) == {"1": 200}
    assert shop.changes(0) == {"1": 300}
    assert shop.changes(61) == {"1": 200}, "its start is due again"


def test_a_look_at_all_prices_finds_what_nothing_else_shows(shop: Shop) -> None:
    shop.put(ALL, [("1", "regular", always(300))])
    shop.look()
    shop.replica.connection.execute("UPDATE prices SET schedule = '[[0,null,7]]'")
    assert shop.changes() == {}
    shop.look(all_prices=True)
    assert shop.notify() == {"1": 7}


def test_a_change_stays_pending_until_it_is_delivered_and_when_it_changed_again_meanwhile(shop: Shop) -> None:
    shop.put(ALL, [("1", "regular", always(1)), ("2", "regular", always(2))])
    shop.look()
    shop.put(ALL, [("1", "regular", always(10)), ("2", "regular", always(20))])
    shop.look()
    pending = shop.price_changes.pending_for_hook(9)
    assert [change.sku for change in pending] == ["1", "2"]
    shop.put(ALL, [("2", "regular", always(21))])
    shop.look()
    shop.price_changes.mark_delivered(pending)
    assert shop.notify() == {"2": 21}


def test_changes_are_delivered_in_the_order_in_which_prices_changed(shop: Shop) -> None:
    shop.put(ALL, [(sku, "regular", always(1)) for sku in "abc"])
    shop.look()
    for sku in "cab":
        shop.put(ALL, [(sku, "regular", always(2))])
        shop.look()
    assert [change.sku for change in shop.price_changes.pending_for_hook(2)] == ["c", "a"]


def test_what_hq_was_sent_is_counted_no_more(shop: Shop) -> None:
    shop.put(ALL, [(sku, "regular", always(1)) for sku in "abc"])
    shop.look()
    shop.put(ALL, [(sku, "regular", always(2)) for sku in "abc"])
    shop.look()
    assert shop.price_changes.pending_for_hq(2) == (3, ["a", "b"])
    shop.price_changes.mark_sent_to_hq()
    assert shop.price_changes.pending_for_hq(2) == (0, [])
    assert len(shop.price_changes.pending_for_hook(9)) == 3, "what is pending for the hook is counted apart"


def test_a_damaged_file_begins_anew_and_has_nothing_pending(shop: Shop) -> None:
    shop.put(ALL, [("1", "regular", always(1))])
    shop.look()
    shop.price_changes.path.write_bytes(b"no database " * 1_000)
    assert shop.changes() == {}
    shop.put(ALL, [("1", "regular", always(2))])
    assert shop.changes() == {"1": 2}


def test_a_look_at_prices_that_stand_still_reads_no_price(shop: Shop) -> None:
    """By its plan: what is due is found in an index."""
    shop.put(ALL, [("1", "regular", always(1))])
    shop.look()
    due = "SELECT sku FROM notified WHERE next_s <= 5 ORDER BY next_s LIMIT 9"
    coming = "SELECT min(next_s) FROM notified WHERE next_s IS NOT NULL"
    pending = "SELECT sku FROM notified WHERE hook_serial > 0 ORDER BY hook_serial, sku"
    with opened(shop.price_changes.path, shop.directory / "replica.db") as db:
        for sql in (due, coming, pending):
            plan = " ".join(str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {sql}"))
            assert "USING" in plan and "INDEX" in plan and "TEMP B-TREE" not in plan, plan


def in_force(lines: dict[tuple[str, str, str], Steps], now_s: int) -> dict[str, int]:
    """The rules of precedence once more, in plain words: narrower scope, not regular, later start, lower amount."""
    best: dict[str, tuple[tuple[int, bool, int, int], int]] = {}
    for (scope, sku, kind), steps in lines.items():
        for starts, ends, amount in steps:
            if starts <= now_s and (ends is None or now_s < ends):
                weight = (SCOPES.index(scope), kind != "regular", starts, -amount)
                if sku not in best or weight > best[sku][0]:
                    best[sku] = (weight, amount)
    return {sku: amount for sku, (_, amount) in best.items()}


@pytest.mark.parametrize("seed", range(4))
def test_labels_show_the_prices_in_force_after_every_look_and_get_nothing_but_changes(
    tmp_path: Path, seed: int
) -> None:
    """Random histories against a dict: publications, deletions, rebuilds, passing time, crashes before a delivery."""
    rng = random.Random(seed)
    shop, lines, now_s = Shop(tmp_path), dict[tuple[str, str, str], Steps](), NOW_S
    shop.put(ALL)
    shop.put(WEST)
    shop.price_changes.find(now_s, hook=True, hq=True)

    def steps() -> Steps:
        found, at = Steps(), now_s - rng.randrange(40)
        for _ in range(rng.randint(1, 3)):
            starts = at + rng.randrange(30)
            at = starts + rng.randint(1, 30)
            found.append((starts, at, rng.randrange(1, 6)))
        return [*found[:-1], (found[-1][0], None if rng.random() < 0.5 else found[-1][1], found[-1][2])]

    for _ in range(60):
        stream = rng.choice((ALL, WEST))
        deed = rng.random()
        mine = [k for k in lines if k[0] == stream.scope]
        if deed < 0.45:
            keys = {(str(rng.randrange(8)), rng.choice(("regular", "promotion", "clearance"))) for _ in range(3)}
            rows = [(sku, kind, steps()) for sku, kind in sorted(keys)]
            shop.put(stream, rows)
            lines |= {(stream.scope, sku, kind): each for sku, kind, each in rows}
        elif deed < 0.6 and mine:
            gone = rng.sample(mine, rng.randint(1, min(3, len(mine))))
            shop.put(stream, gone=[k[1:] for k in gone])
            for key in gone:
                del lines[key]
        elif deed < 0.65:
            kept = {k: lines[k] for k in rng.sample(mine, len(mine) // 2)}
            lines = {k: v for k, v in lines.items() if k[0] != stream.scope} | kept
            shop.put(stream, [(*k[1:], v) for k, v in kept.items()], replace=True, epoch=f"e{rng.random()}")
        now_s += rng.choice((0, 0, 1, 7, 25))
        if rng.random() < 0.7:
            shop.price_changes.find(now_s, hook=True, hq=True)
            if rng.random() < 0.2:
                continue  # a crash: found, but not delivered
            before = {sku: amount for sku, amount in shop.labels.items() if amount is not None}
            shop.notify()
            shown = {sku: amount for sku, amount in shop.labels.items() if amount is not None}
            assert shown == in_force(lines, now_s), before
            assert shop.changes(now_s - NOW_S) == {}
    shop.replica.connection.close()
