"""The bench's own MQTT client: packets in pieces, and a light store that is not done too early."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from storelink.contract.contexts import BUILT_IN
from storelink.contract.messages import Head, Segment, SegmentRef, encode_head, encode_segment
from storelink.contract.rows import EMPTY
from storelink.contract.streams import Stream
from testbed import mqtt_packets as packets
from testbed.light_store import LightStore, Tally
from testbed.mqtt_client import Loop

EPOCH = "000000000001-00000000"
PRODUCTS, PRICES = Stream.parse("product/all", BUILT_IN), Stream.parse("price/all", BUILT_IN)


def test_a_packet_is_read_whole_or_not_at_all() -> None:
    packet = packets.publish(7, "a/b", b"x" * 300, retain=True)
    whole = memoryview(packet + b"\x40")
    assert [packets.split(whole[:end]) for end in range(len(packet))] == [None] * len(packet)
    found = packets.split(whole)
    assert found is not None
    first, start, end = found
    assert end == len(packet)
    message = packets.read_publish(first, whole[start:end])
    assert (message.topic, bytes(message.payload), message.qos, message.packet_id) == ("a/b", b"x" * 300, 1, 7)


class Connection:
    """The socket's side of a client, left out: what the store asks for is written down."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def subscribe(self, topics: Any) -> None:
        self.asked += topics

    def unsubscribe(self, topics: Any) -> None: ...


def test_a_light_store_has_arrived_only_with_every_segment_of_both_heads(monkeypatch: Any) -> None:
    monkeypatch.setattr("testbed.light_store.Client", lambda *_: Connection())
    tally = Tally()
    store = LightStore(Loop(), 0, "storenode", "light-1", tally)
    row = (1, "4011", "regular", "EUR", "[[1764000000,null,199]]")
    segment = encode_segment("storenode", Segment(PRICES, EPOCH, 1, 1, [row], []), 0)
    ref = SegmentRef(1, 1, 1, len(segment.payload), sha256(segment.payload).hexdigest())
    heads = {
        PRODUCTS: Head(PRODUCTS, EPOCH, 1, EMPTY, 0, 0, 0, (), [], [(1, "9")]),
        PRICES: Head(PRICES, EPOCH, 1, "0" * 31 + "1", 1, 0, 0, (ref,), [], []),
    }
    arrived = []
    for message in (*(encode_head("storenode", head) for head in heads.values()), segment):
        store.receive(packets.Publish(message.topic, memoryview(message.payload), 1, 1, message.content_type))
        arrived.append(tally.arrived)
    assert (arrived, tally.rejected) == ([0, 0, 1], 0)
