"""`hq verify`: what each store last said, held against the master: current, behind, never, differs or refuses."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hq import Catalog
from hq.cli import main
from hq.collect.inbox import StoreInbox, inbox_path
from storelink.contract.rows import EMPTY
from storelink.contract.status import OFFLINE, MessageRefusal, Status, StreamStatus

PRICE, PRODUCT = "price/all", "product/all"
OTHER_EPOCH = "000000000001-00000000"
REFUSAL = MessageRefusal("live", None, "too_large", "4 MiB", 1_800_000_000_000, 3)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """A master whose price/all is at 2, and product/all at 0."""
    with Catalog.create(tmp_path / "hq.db") as catalog:
        catalog.publish("price", sku="1", amount="1.00", currency="EUR")
        catalog.publish("price", sku="2", amount="1.00", currency="EUR")
        yield catalog


@pytest.fixture
def digests(catalog: Catalog) -> tuple[str, str, str]:
    """Of price/all, after each of its events."""
    with closing(sqlite3.connect(catalog.path)) as db:
        found = db.execute("SELECT digest FROM events WHERE stream = ? ORDER BY seq", (PRICE,)).fetchall()
    return (EMPTY, found[0][0], found[1][0])


@pytest.fixture
def epoch(catalog: Catalog) -> str:
    return catalog.status().streams[PRICE].epoch


Say = Callable[..., None]


@pytest.fixture
def say(catalog: Catalog) -> Say:
    """A store's status comes in: `say("s", price=StreamStatus(...))`."""

    def said(store: str, **streams: StreamStatus) -> None:
        inbox = StoreInbox.open(inbox_path(catalog.path))
        named = {f"{context}/all": status for context, status in streams.items()}
        with inbox.transaction():
            inbox.set_status(Status(store, "live" if named else OFFLINE, 1, named), 1_800_000_000_000)
        inbox.close()

    return said


def verify(catalog: Catalog, *options: str) -> Result:
    environ = {"HQ_DB": str(catalog.path), "HQ_CONFIG": "", "HQ_BROKER": "mqtt://localhost:1"}
    return CliRunner().invoke(main, ["verify", *options], env=environ, catch_exceptions=False)


def judged(catalog: Catalog) -> dict[str, Any]:
    return {store: {n: said["state"] for n, said in each.items()} for store, each in catalog.verify().stores.items()}


def exit_codes(catalog: Catalog) -> tuple[int, int]:
    return verify(catalog).exit_code, verify(catalog, "--strict").exit_code


def test_a_store_at_the_head_is_current(catalog: Catalog, say: Say, epoch: str, digests: tuple[str, str, str]) -> None:
    product = StreamStatus("live", catalog.status().streams[PRODUCT].epoch, 0, EMPTY)
    say("s", price=StreamStatus("live", epoch, 2, digests[2]), product=product)
    assert judged(catalog) == {"s": {PRICE: "current", PRODUCT: "current"}}
    assert exit_codes(catalog) == (0, 0)
    assert verify(catalog).stdout.endswith("2 streams of 1 stores: 2 current\n")


def test_a_store_that_is_behind_is_said_and_counted(
    catalog: Catalog, say: Say, epoch: str, digests: tuple[str, str, str]
) -> None:
    """It was "as the master had it", with exit code 0 and no other word."""
    for position in (0, 1):
        say("s", price=StreamStatus("catching_up", epoch, position, digests[position]))
        found = verify(catalog)
        assert f"BEHIND   s price/all: at {position} of 2, as the master had it there\n" in found.stdout
        assert found.stdout.endswith("1 streams of 1 stores: 1 behind\n")
        assert exit_codes(catalog) == (0, 3)
    document = json.loads(verify(catalog, "--json").stdout)
    assert (document["ok"], document["counts"]["behind"], document["counts"]["current"]) == (True, 1, 0)
    said = document["stores"]["s"][PRICE]
    assert (said["state"], said["ok"], said["position"], said["head_seq"]) == ("behind", True, 1, 2)


def test_a_store_of_another_epoch_is_behind_and_nothing_is_compared(
    catalog: Catalog, say: Say, digests: tuple[str, str, str]
) -> None:
    say("s", price=StreamStatus("rebuilding", OTHER_EPOCH, 2, digests[2]))
    assert catalog.verify().stores["s"][PRICE]["ok"] is None
    assert "BEHIND   s price/all: of another epoch than the master's" in verify(catalog).stdout
    assert exit_codes(catalog) == (0, 3)


@pytest.mark.parametrize("of_epoch", [True, False])
def test_a_store_that_never_was_complete_is_never(catalog: Catalog, say: Say, epoch: str, of_epoch: bool) -> None:
    """Also where HQ's stream is empty, and the digests are equal: the store has not heard so yet."""
    product = catalog.status().streams[PRODUCT].epoch
    say("s", product=StreamStatus("bootstrapping", product if of_epoch else None, 0, EMPTY))
    assert (judged(catalog), catalog.verify().stores["s"][PRODUCT]["ok"]) == ({"s": {PRODUCT: "never"}}, None)
    assert "NEVER    s product/all: it never was complete\n" in verify(catalog).stdout
    assert exit_codes(catalog) == (0, 3)


def test_a_scope_that_hq_does_not_have_is_named(catalog: Catalog, say: Say) -> None:
    inbox = StoreInbox.open(inbox_path(catalog.path))
    with inbox.transaction():
        streams = {"price/zone-wets": StreamStatus("bootstrapping", None, 0, EMPTY)}
        inbox.set_status(Status("s", "bootstrapping", 1, streams), 1)
    inbox.close()
    assert "NEVER    s price/zone-wets: HQ has no such stream\n" in verify(catalog).stdout


def test_a_store_that_has_not_said_what_it_has_is_not_current(catalog: Catalog, say: Say) -> None:
    say("s")
    assert "NEVER    s: it has not said yet what it has\n" in verify(catalog).stdout
    assert exit_codes(catalog) == (0, 3)


def test_a_store_with_other_rows_differs_wherever_it_is(
    catalog: Catalog, say: Say, epoch: str, digests: tuple[str, str, str]
) -> None:
    for status in (
        StreamStatus("live", epoch, 2, digests[1]),
        StreamStatus("catching_up", epoch, 1, digests[2]),
        StreamStatus("live", epoch, 3, digests[2]),
        StreamStatus("live", epoch, 2, digests[2], verified_ok=False),
    ):
        say("s", price=status)
        assert judged(catalog) == {"s": {PRICE: "differs"}}
        assert exit_codes(catalog) == (2, 2)
        assert json.loads(verify(catalog, "--json").stdout)["ok"] is False


def test_a_store_that_refuses_counts_as_that_alone(
    catalog: Catalog, say: Say, epoch: str, digests: tuple[str, str, str]
) -> None:
    say("s", price=StreamStatus("catching_up", epoch, 1, digests[1], refusal=REFUSAL))
    found = catalog.verify()
    assert found.counts == {"current": 0, "behind": 0, "never": 0, "differs": 0, "refuses": 1}
    assert exit_codes(catalog) == (2, 2)


def test_without_stores_that_is_said(catalog: Catalog) -> None:
    assert verify(catalog).stdout.endswith("no store has reported yet\n")
    assert exit_codes(catalog) == (0, 0)
