"""Other scopes without an outage: what goes is served until what comes is complete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from storelink.contract.contexts import BUILT_IN, PRICE
from storelink.contract.rows import EMPTY
from storelink.contract.streams import Stream
from storenode.core.phases import Phase
from storenode.core.verdicts import Position
from storenode.follow.follower import Follower
from storenode.follow.unfollow import LOOK_EVERY_MS, MISSING_AFTER_MS, UnfollowedStreams, sweep_spools
from storenode.replica import queries
from storenode.replica.writer import Replica

AMOUNTS = {"price/all": 10, "price/zone-west": 20, "price/zone-east": 30, "price/store-7": 40}


def fill(replica: Replica, *streams: str) -> None:
    for name in streams:
        row: Any = (1, "1", "regular", "EUR", f"[[0,null,{AMOUNTS.get(name)}]]")
        if name.startswith("product"):
            row = (1, "1", None, name, *(None,) * 10)
        replica.apply(
            Stream.parse(name, BUILT_IN),
            epoch="e",
            position=1,
            digest=EMPTY,
            head_seq=1,
            batches=[([row], [])],
            replace=False,
            wall_ms=0,
        )


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    """Opens the replica with other scopes, as a restart does."""
    found: list[Replica] = []

    def opened(*scopes: str) -> Replica:
        if found:
            found.pop().connection.close()
        found.append(Replica.open(tmp_path / "replica.db", scopes, BUILT_IN))
        return found[0]

    yield opened
    found.pop().connection.close()


def sold_at(replica: Replica) -> int:
    amount: int = queries.price(replica.path, "1", None)["amount_minor"]
    return amount


def unfollowed(replica: Replica) -> list[str]:
    return replica.remove_unfollowed(())[1]


def ranks(replica: Replica) -> dict[str, int]:
    return dict(replica.connection.execute("SELECT scope, rank FROM scopes"))


def test_a_zone_that_replaces_another_never_leaves_a_store_without_prices(opened: Callable[..., Replica]) -> None:
    fill(opened("price/zone-west"), "price/zone-west")
    replica = opened("price/zone-east")
    assert (sold_at(replica), unfollowed(replica)) == (20, ["price/zone-west"])
    assert [str(s) for s in queries.streams(replica.path, BUILT_IN)] == ["price/zone-east"]
    fill(replica, "price/zone-east")
    assert sold_at(replica) == 30
    assert replica.remove_unfollowed(()) == (["price/zone-west"], [])
    assert replica.connection.execute("SELECT scope FROM prices").fetchall() == [("zone-east",)]
    assert ranks(replica) == {"zone-east": 0}


def test_what_departs_ranks_below_what_is_followed_in_the_order_it_had(opened: Callable[..., Replica]) -> None:
    fill(opened("all", "zone-west", "store-7"), "price/all", "price/zone-west", "price/store-7")
    replica = opened("price/zone-east")
    assert ranks(replica) == {"zone-east": 0, "store-7": -1, "zone-west": -2, "all": -3}
    assert sold_at(replica) == 40
    replica = opened("all", "price/zone-east")
    assert ranks(replica) == {"all": 0, "zone-east": 1, "store-7": -1, "zone-west": -2}
    assert sold_at(replica) == 10, "all is followed, and what goes gives way to it"


def test_each_context_waits_for_its_own_streams(opened: Callable[..., Replica]) -> None:
    fill(opened("zone-west"), "price/zone-west", "product/zone-west")
    replica = opened("zone-east")
    fill(replica, "price/zone-east")
    assert replica.remove_unfollowed(()) == (["price/zone-west"], ["product/zone-west"])
    assert ranks(replica) == {"zone-east": 0, "zone-west": -1}
    assert replica.connection.execute("SELECT name FROM catalog").fetchall() == [("product/zone-west",)]
    fill(replica, "product/zone-east")
    assert replica.remove_unfollowed(()) == (["product/zone-west"], [])
    assert replica.connection.execute("SELECT name FROM catalog").fetchall() == [("product/zone-east",)]


def test_a_context_that_is_followed_nowhere_any_more_goes_at_once(opened: Callable[..., Replica]) -> None:
    fill(opened("all"), "price/all", "product/all")
    replica = opened("price/all")
    assert (unfollowed(replica), replica.connection.execute("SELECT count(*) FROM products").fetchone()) == ([], (0,))


def test_a_stream_that_comes_back_goes_on_where_it_was(opened: Callable[..., Replica]) -> None:
    fill(opened("price/zone-west"), "price/zone-west")
    opened("price/zone-east")
    replica = opened("price/zone-west")
    assert (replica.state(Stream.parse("price/zone-west", BUILT_IN)).position, unfollowed(replica)) == (1, [])
    assert (sold_at(replica), ranks(replica)) == (20, {"zone-west": 0})
    assert queries.streams(replica.path, BUILT_IN) == [Stream.parse("price/zone-west", BUILT_IN)]


def test_what_was_never_complete_is_not_kept(opened: Callable[..., Replica]) -> None:
    fill(opened("price/zone-west"), "price/zone-west")
    opened("price/zone-east")
    assert unfollowed(opened("price/store-7")) == ["price/zone-west"]


class Heard:
    """What Departures asks of a follower."""

    def __init__(self, phase: Phase, epoch: str | None) -> None:
        self.phase, self.position = phase, Position(epoch, 0, EMPTY)


def followers(**phases: tuple[Phase, str | None]) -> dict[Stream, Follower]:
    return {Stream(PRICE, scope.replace("_", "-")): cast(Follower, Heard(*each)) for scope, each in phases.items()}


def test_a_stream_that_hq_does_not_have_is_waited_for_a_minute_of_connection(opened: Callable[..., Replica]) -> None:
    fill(opened("price/zone-west"), "price/zone-west")
    replica = opened("price/zone-east", "price/store-7")
    fill(replica, "price/zone-east")
    watched = UnfollowedStreams(replica, followers(zone_east=(Phase.LIVE, "e"), store_7=(Phase.AWAITING_HEAD, None)))
    watched.start()
    watched.step(0, connected=True)
    watched.step(MISSING_AFTER_MS - 1, connected=True)
    watched.step(MISSING_AFTER_MS + LOOK_EVERY_MS, connected=False)
    watched.step(2 * MISSING_AFTER_MS, connected=True)
    assert unfollowed(replica) == ["price/zone-west"], "the line was down in between"
    watched.step(3 * MISSING_AFTER_MS, connected=True)
    assert unfollowed(replica) == []


@pytest.mark.parametrize("phase", [Phase.AWAITING_HEAD, Phase.FETCHING])
def test_while_nothing_takes_its_place_or_it_is_being_fetched_a_zone_is_kept(
    opened: Callable[..., Replica], phase: Phase
) -> None:
    fill(opened("price/zone-west"), "price/zone-west")
    replica = opened("price/zone-east", "price/store-7")
    if phase is Phase.FETCHING:
        fill(replica, "price/zone-east")
    watched = UnfollowedStreams(replica, followers(zone_east=(Phase.AWAITING_HEAD, None), store_7=(phase, None)))
    watched.start()
    for now_ms in (0, 2 * MISSING_AFTER_MS):
        watched.step(now_ms, connected=True)
    assert unfollowed(replica) == ["price/zone-west"]


def test_what_was_fetched_for_other_streams_is_swept(tmp_path: Path) -> None:
    for name in ("price/all", "price/zone-west", "product/all"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1-2").write_text("x")
    sweep_spools(tmp_path, [Stream.parse("price/all", BUILT_IN), Stream.parse("product/all", BUILT_IN)])
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.glob("*/*")) == ["price/all", "product/all"]
    sweep_spools(tmp_path / "nowhere", [])
