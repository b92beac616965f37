"""A store's settings: where they come from, which wins, and that all mistakes are told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from storelink.contract.contexts import BUILT_IN
from storelink.contract.errors import ContractViolation
from storelink.contract.streams import Stream
from storelink.transport.url import BrokerUrl
from storenode.config import load
from storenode.core.scopes import checked_scopes, followed_streams, scope_ranks, undeclared
from storenode.errors import BadSettings


def test_an_option_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "storenode.toml"
    config.write_text('db = "file.db"\nstore_id = "file"\nroot = "file"\nscopes = ["all", "zone-west"]\n')
    environ = {"STORENODE_CONFIG": str(config), "STORENODE_STORE_ID": "env", "STORENODE_ROOT": "env"}
    found = load(environ, None, {"root": "option", "db": None})
    assert (found.db, found.store_id, found.root) == (Path("file.db"), "env", "option")
    assert found.scopes == ("all", "zone-west")


def test_defaults_follow_everything_chain_wide() -> None:
    found = load({})
    assert (found.db, found.root, found.broker) == (
        Path("replica.db"),
        "storenode",
        BrokerUrl.parse("mqtt://localhost:1883"),
    )
    assert found.streams() == (Stream.parse("product/all", BUILT_IN), Stream.parse("price/all", BUILT_IN))


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    config = tmp_path / "storenode.toml"
    config.write_text('stor_id = "x"\nroot = 7\n')
    with pytest.raises(BadSettings) as caught:
        load({"STORENODE_BROKER": "http://x", "STORENODE_SCOPES": "all,Tax/all"}, config, {"store_id": "Not OK"})
    text = str(caught.value)
    for part in ("unknown setting 'stor_id', did you mean 'store_id'?", "root in", "STORENODE_BROKER", "--store-id"):
        assert part in text
    assert "STORENODE_SCOPES: 'Tax/all' is no context/scope" in text


def test_a_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="No such file"):
        load({}, tmp_path / "none.toml")


def test_a_scope_may_be_followed_in_one_context_only() -> None:
    entries = ("all", "zone-west", "price/store-042")
    assert [str(s) for s in followed_streams(entries, BUILT_IN)] == [
        "product/all",
        "price/all",
        "product/zone-west",
        "price/zone-west",
        "price/store-042",
    ]
    assert scope_ranks(entries) == {"all": 0, "zone-west": 1, "store-042": 2}
    assert scope_ranks(("all", "price/west", "product/west")) == {"all": 0, "west": 1}


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([], "at least one"),
        (["zone-west", "all"], "comes first"),
        (["all", "price/all"], "price/all is named twice"),
        (["all", ""], "scope"),
        (["all", "Zone"], "scope"),
        (["price/zone/west"], "scope"),
        (["Tax/all"], "is no context/scope"),
        (["/all"], "is no context/scope"),
        (["all", *map(str, range(128))], "they make 258 streams; a status names at most 256"),
    ],
)
def test_scopes_that_cannot_be_followed_are_refused(entries: list[str], reason: str) -> None:
    with pytest.raises(ContractViolation, match=reason):
        checked_scopes(entries, BUILT_IN)


def test_a_scope_of_a_context_that_nobody_declared_is_passed_over_and_said() -> None:
    entries = ("all", "tax/all", "prise/zone-west")
    assert checked_scopes(entries, BUILT_IN) == entries
    assert [str(s) for s in followed_streams(entries, BUILT_IN)] == ["product/all", "price/all"]
    assert undeclared(entries, BUILT_IN) == {
        "tax": "scopes name tax/all, but tax is not declared here",
        "prise": "scopes name prise/zone-west, but prise is not declared here; did you mean price?",
    }


@pytest.mark.parametrize(("given", "found"), [("0", 0), (0, 0), ("512", 512), (32, 32)])
def test_a_cap_for_catch_ups_is_read(given: str | int, found: int) -> None:
    assert load({}, None, {"max_kbps": given}).max_kbps == found  # type: ignore[dict-item]


@pytest.mark.parametrize("given", ["-1", "31", 31, True, 1.5, "fast", ""])
def test_a_cap_that_is_none_is_refused(given: object) -> None:
    with pytest.raises(BadSettings, match=r"--max-kbps: .* must be 0"):
        load({}, None, {"max_kbps": given})  # type: ignore[dict-item]
