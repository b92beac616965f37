"""A stream carries its context and is known by its name; a registry is a value."""

from __future__ import annotations

from dataclasses import replace

import pytest

from storelink.contract.contexts import BUILT_IN, PRICE, PRODUCT
from storelink.contract.errors import ContractViolation
from storelink.contract.streams import Stream, check_stream_name, live_topic, parse_topic
from tests.registry import TAX, registry_of


def test_a_stream_is_known_by_its_name() -> None:
    west = Stream(PRICE, "zone-west")
    same = Stream(replace(PRICE, table="other"), "zone-west")
    assert (str(west), west.name, west.context, west.scope) == (
        "price/zone-west",
        "price/zone-west",
        PRICE,
        "zone-west",
    )
    assert (west == same, hash(west) == hash(same), {west: 1}[same]) == (True, True, 1)
    assert sorted([Stream(PRODUCT, "all"), west, Stream(PRICE, "all")]) == [
        Stream(PRICE, "all"),
        west,
        Stream(PRODUCT, "all"),
    ]


def test_only_a_known_context_makes_a_stream() -> None:
    assert Stream.parse("tax/all", registry_of(TAX)).context == registry_of(TAX)["tax"]
    with pytest.raises(ContractViolation, match="'tax/all' is not a declared context/scope"):
        Stream.parse("tax/all", BUILT_IN)
    with pytest.raises(ContractViolation, match="bad_stream"):
        parse_topic("t", "t/live/tax/all", BUILT_IN)
    topic = live_topic("t", Stream.parse("tax/all", registry_of(TAX)))
    assert parse_topic("t", topic, registry_of(TAX))[1].context.table == "taxes"


def test_a_name_may_be_checked_without_knowing_its_context() -> None:
    check_stream_name("tax/all")
    for bad in ("tax", "tax/", "T/all", "tax/a b", ""):
        with pytest.raises(ContractViolation):
            check_stream_name(bad)


def test_a_process_may_hold_several_registries() -> None:
    wider = BUILT_IN.with_declared(registry_of(TAX).declared)
    assert (list(wider), list(BUILT_IN)) == (["product", "price", "tax"], ["product", "price"])
    assert [context.name for context in wider.declared] == ["tax"]
