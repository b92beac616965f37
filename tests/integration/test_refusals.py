"""What a store's decoder refuses lies on the broker under HQ's own topics: it stands still, and both ends say so.

`hq verify` said ok and `storenode status` showed a store that was `bootstrapping` for ever.
"""

from __future__ import annotations

import json
import re
import select
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

from zstandard import ZstdCompressor

from storelink.contract import codec, contexts
from storelink.contract.limits import BODY_BYTES_MAX
from storelink.contract.messages import Head, Message, SegmentRef, decode_head, encode_head
from storelink.contract.streams import Stream, head_topic, segment_topic
from storelink.transport.event_queue import EventQueue
from storelink.transport.mqtt import MqttLink
from storelink.transport.port import Connected, LinkEvent, Published, Received
from storelink.transport.url import BrokerUrl
from testbed.chain import Chain
from testbed.process import until

ROOT, PRICE = "storenode", Stream(contexts.PRICE, "all")
WITHIN_S = 60.0
REPAIR = "HQ and store versions may differ: compare storenode --version with hq --version, upgrade the older one"


class Hand:
    """Somebody who reads and writes retained messages with a connection of their own."""

    def __init__(self, port: int) -> None:
        self._inbox = EventQueue()
        self._link = MqttLink(BrokerUrl.parse(f"mqtt://127.0.0.1:{port}"), "hand", self._inbox.put)
        self._link.start()
        self._wait(lambda event: isinstance(event, Connected))

    def take(self, topic: str) -> Message:
        self._link.subscribe([topic])
        event = self._wait(lambda event: isinstance(event, Received) and event.message.topic == topic)
        assert isinstance(event, Received)
        self._link.unsubscribe([topic])
        return event.message

    def head_at(self, seq: int) -> Head:
        """The head of prices, once HQ has brought it there: that is a moment later than the live batches."""
        found: list[Head] = []

        def is_there() -> bool:
            found[:] = [decode_head(ROOT, self.take(head_topic(ROOT, PRICE)), contexts.BUILT_IN)]
            return found[0].seq == seq

        until(is_there, f"HQ's head at {seq}")
        return found[0]

    def put(self, message: Message) -> None:
        token = self._link.publish(replace(message, retain=True))
        self._wait(lambda event: isinstance(event, Published) and event.token == token)

    def close(self) -> None:
        self._link.close()

    def _wait(self, is_it: Callable[[LinkEvent], bool]) -> LinkEvent:
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s:
            while (event := self._inbox.pop()) is not None:
                if is_it(event):
                    return event
            select.select([self._inbox.fileno()], [], [], 0.5)
            self._inbox.clear_wake()
        raise AssertionError("not within 10 s")


def forge_segment(chain: Chain) -> SegmentRef:
    """The newest segment of prices becomes one that unfolds to more than a store takes; the head names it."""
    hand = Hand(chain.port)
    head = hand.head_at(chain.master()["price/all"]["head_seq"])
    *others, newest = head.segments
    genuine = hand.take(segment_topic(ROOT, PRICE, newest.first, newest.last))
    body = json.loads(codec.unpack(genuine.payload, genuine.content_type))
    payload = ZstdCompressor().compress(json.dumps(body | {"more": "x" * BODY_BYTES_MAX}).encode())
    hand.put(replace(genuine, payload=payload, content_type=codec.ZSTD_TYPE))
    forged = replace(newest, size_bytes=len(payload), sha256=sha256(payload).hexdigest())
    hand.put(encode_head(ROOT, replace(head, segments=(*others, forged))))
    hand.close()
    return forged


def forge_head(chain: Chain) -> None:
    """The head of prices becomes one of another version of the protocol."""
    hand = Hand(chain.port)
    hand.head_at(chain.master()["price/all"]["head_seq"])
    head = hand.take(head_topic(ROOT, PRICE))
    body = json.loads(codec.unpack(head.payload, head.content_type))
    payload, content_type = codec.pack(json.dumps(body | {"version": "2.0"}).encode())
    hand.put(replace(head, payload=payload, content_type=content_type))
    hand.close()


def price_at_store(chain: Chain, name: str) -> dict[str, Any]:
    found = json.loads(chain.store(name, "status", "--json").stdout or "{}")
    return dict(found.get("streams", {}).get("price/all", {}))


def price_at_hq(chain: Chain, name: str) -> dict[str, Any]:
    stores = json.loads(chain.hq("stores", "--json").stdout)["stores"]
    return dict(stores.get(name, {}).get("streams", {}).get("price/all", {}))


def is_told(price_at: Callable[[Chain, str], dict[str, Any]], chain: Chain, name: str) -> bool:
    return bool(price_at(chain, name).get("refusal"))


def is_quiet_at_hq(chain: Chain, name: str) -> bool:
    return price_at_hq(chain, name)["refusal"] is None


def wait_told(chain: Chain, *names: str) -> None:
    for name in names:
        until(partial(is_told, price_at_store, chain, name), f"{name} says it", WITHIN_S)
        until(partial(is_told, price_at_hq, chain, name), f"HQ knows of {name}", WITHIN_S)


def without_counts(refusal: dict[str, Any]) -> dict[str, Any]:
    """What differs from run to run is left out, and is of the right form."""
    told = dict(refusal)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told.pop("since"))
    assert told.pop("times") >= 2
    return told


def assert_told(chain: Chain, name: str, expected: dict[str, Any], sentence: str) -> None:
    """Status, doctor, `hq stores` and `hq verify` say the same, in words and in JSON."""
    assert without_counts(price_at_store(chain, name)["refusal"]) == expected
    assert without_counts(price_at_hq(chain, name)["refusal"]) == expected
    for said in (chain.store(name, "status"), chain.store(name, "doctor"), chain.hq("stores")):
        assert re.search(sentence, said.stdout), said.stdout
        assert REPAIR in said.stdout, said.stdout
    assert chain.store(name, "doctor").returncode == 1
    proof = chain.hq("verify", check=False)
    assert (proof.returncode, REPAIR in proof.stdout) == (2, True)
    assert re.search(f"REFUSES  {name} {sentence}", proof.stdout), proof.stdout
    document = json.loads(chain.hq("verify", "--json", check=False).stdout)
    facts = document["stores"][name]["price/all"]
    assert (document["ok"], facts["ok"], without_counts(facts["refusal"])) == (False, False, expected)


def assert_heals(chain: Chain, *names: str) -> None:
    """HQ puts right what the broker has; nobody touches the stores."""
    chain.hq_run.stop()
    chain.hq_run.start()
    chain.wait_equal(*names)
    for name in names:
        assert price_at_store(chain, name)["refusal"] is None
        until(partial(is_quiet_at_hq, chain, name), "HQ knows")
    until(lambda: chain.hq("verify", check=False).returncode == 0, "HQ says ok")


def test_a_segment_that_stores_refuse_is_told_at_both_ends_until_hq_replaces_it(chain: Chain) -> None:
    chain.hq_run.start()
    chain.import_prices(3_000, "1.00")
    old = chain.add_store("old")
    chain.wait_equal("old")
    old.stop()
    chain.import_amounts({str(sku): sku * 7_919 % 99_991 for sku in range(3_001, 18_001)})  # they do not pack well
    chain.wait_published()
    forged = forge_segment(chain)
    assert forged.last > 3_000, "the store that has been here before needs it, too"
    old.start()
    chain.add_store("new")
    wait_told(chain, "old", "new")
    expected = {
        "message": "segment",
        "range": f"{forged.first}-{forged.last}",
        "reason": "oversized",
        "why": "it is too large: 131,072 bytes as sent and 4,194,304 unpacked are the limit",
    }
    for name, code, so in (("old", 1, "What is here serves on"), ("new", 2, "There is nothing to sell by yet")):
        detail = price_at_store(chain, name)["refusal"]["detail"]
        assert re.fullmatch(r"body of \d{7} bytes before compression; at most 4194304", detail)
        sentence = rf"price/all: refuses segment {forged.first}-{forged.last} since \S+: it is too large: .* times\)"
        assert_told(chain, name, expected | {"detail": detail}, sentence)
        screen = chain.store(name, "status")
        assert (screen.returncode, so in screen.stdout) == (code, True), screen.stdout
    assert json.loads(chain.store("old", "price", "17", "--json").stdout)["amount_minor"] == 100
    assert chain.stores["new"].log.read_text().count("message.refused") == 1
    assert_heals(chain, "old", "new")


def test_a_head_that_stores_refuse_is_told_at_both_ends_until_hq_replaces_it(chain: Chain) -> None:
    chain.hq_run.start()
    chain.import_prices(30, "1.00")
    chain.wait_published()
    forge_head(chain)
    chain.add_store("s")
    wait_told(chain, "s")
    expected = {
        "message": "head",
        "range": None,
        "reason": "version",
        "why": "it is of a version of the protocol that this store does not read",
        "detail": "version '2.0'; this side speaks 1.0",
    }
    assert_told(chain, "s", expected, r"price/all: refuses the head since \S+: it is of a version .* times\)")
    assert chain.store("s", "status").returncode == 2
    assert_heals(chain, "s")
