"""What every link promises, run on the in-memory twin and on real brokers."""

from __future__ import annotations

import pytest

from storelink.contract.limits import MESSAGE_BYTES_MAX
from storelink.contract.messages import Message
from storelink.transport.port import Connected, NotConnected, Oversized, Subscribed
from tests.ports.rigs import Client, Rig

ATTRIBUTES = {"specversion": "1.0", "id": "1", "subject": "price/all", "note": "Käse, 1 €"}


def started(rig: Rig, client_id: str, will: Message | None = None) -> Client:
    client = rig.client(client_id, will)
    client.link.start()
    rig.until(lambda: client.link.connected and bool(client.generations))
    return client


def subscribed(rig: Rig, client: Client, *topics: str) -> None:
    before = len(client.events)
    client.link.subscribe(topics)
    rig.until(lambda: set(topics) <= {t for e in client.events[before:] if isinstance(e, Subscribed) for t in e.topics})


def delivered(rig: Rig, client: Client, *messages: Message) -> None:
    tokens = [client.link.publish(message) for message in messages]
    rig.until(lambda: set(tokens) <= set(client.acknowledged))


def test_a_message_arrives_whole(rig: Rig) -> None:
    a, b = started(rig, "a"), started(rig, "b")
    sent = Message("t/live/price/all", bytes(range(256)), False, "application/json", ATTRIBUTES)
    subscribed(rig, b, sent.topic)
    delivered(rig, a, sent)
    rig.until(lambda: b.messages == [sent])


def test_a_message_may_be_bare_and_as_large_as_the_limit(rig: Rig) -> None:
    a, b = started(rig, "a"), started(rig, "b")
    bare, largest = Message("t/x", b""), Message("t/x", b"\xff" * MESSAGE_BYTES_MAX)
    subscribed(rig, b, "t/x")
    delivered(rig, a, bare, largest)
    rig.until(lambda: b.messages == [bare, largest])


def test_a_message_over_the_limit_is_refused_and_the_line_stays(rig: Rig) -> None:
    a = started(rig, "a")
    with pytest.raises(Oversized) as caught:
        a.link.publish(Message("t/x", b"x" * (MESSAGE_BYTES_MAX + 1)))
    assert caught.value.hint
    delivered(rig, a, Message("t/x", b"small"))
    assert a.events[0] == Connected(1)
    assert not a.losses


def test_every_message_is_acknowledged_once_and_arrives_in_order(rig: Rig) -> None:
    a, b = started(rig, "a"), started(rig, "b")
    subscribed(rig, b, "t/x")
    sent = [Message("t/x", str(i).encode()) for i in range(1_000)]
    tokens = [a.link.publish(message) for message in sent]
    rig.until(lambda: len(a.acknowledged) >= 1_000 and len(b.messages) >= 1_000)
    rig.settle()
    assert sorted(a.acknowledged) == tokens == sorted(set(tokens))
    assert b.messages == sent


def test_a_retained_message_comes_live_first_and_kept_later(rig: Rig) -> None:
    a, early, late = started(rig, "a"), started(rig, "early"), started(rig, "late")
    subscribed(rig, early, "t/head/price/all")
    delivered(rig, a, Message("t/head/price/all", b"1", True), Message("t/head/price/all", b"2", True))
    subscribed(rig, late, "t/head/price/all")
    rig.until(lambda: len(early.messages) == 2 and len(late.messages) == 1)
    assert early.messages == [Message("t/head/price/all", b"1"), Message("t/head/price/all", b"2")]
    assert late.messages == [Message("t/head/price/all", b"2", True)]


def test_a_retained_message_keeps_its_properties(rig: Rig) -> None:
    a, b = started(rig, "a"), started(rig, "b")
    sent = Message("t/head/price/all", b"{}", True, "application/json", ATTRIBUTES)
    delivered(rig, a, sent)
    subscribed(rig, b, sent.topic)
    rig.until(lambda: b.messages == [sent])


def test_an_empty_retained_message_clears_the_topic(rig: Rig) -> None:
    a, b = started(rig, "a"), started(rig, "b")
    delivered(rig, a, Message("t/x", b"old", True), Message("t/y", b"stays", True))
    delivered(rig, a, Message("t/x", b"", True))
    subscribed(rig, b, "t/x", "t/y")
    rig.until(lambda: bool(b.messages))
    rig.settle()
    assert b.messages == [Message("t/y", b"stays", True)]


def test_many_topics_are_asked_for_eight_at_a_time(rig: Rig) -> None:
    a, b = started(rig, "a"), started(rig, "b")
    kept = [Message(f"t/segment/price/all/{i}-{i}", b"%d" % i, True) for i in range(1, 41)]
    delivered(rig, a, *kept)
    subscribed(rig, b, *(m.topic for m in kept))
    rig.until(lambda: len(b.messages) == 40)
    assert sorted(b.messages, key=lambda m: int(m.payload)) == kept
    asked = [e.topics for e in b.events if isinstance(e, Subscribed)]
    assert [len(topics) for topics in asked] == [8] * 5
    b.link.unsubscribe([m.topic for m in kept])
    rig.settle()
    delivered(rig, a, *kept)
    rig.settle()
    assert len(b.messages) == 40


def test_wildcards_match_levels(rig: Rig) -> None:
    a, one, rest = started(rig, "a"), started(rig, "one"), started(rig, "rest")
    subscribed(rig, one, "t/store/+/status")
    subscribed(rig, rest, "t/store/#")
    sent = [Message(f"t/{x}", b"") for x in ("store/1/status", "store/2/outbox", "store/1/status/x", "live/1/status")]
    delivered(rig, a, *sent)
    rig.until(lambda: len(rest.messages) == 3 and len(one.messages) == 1)
    rig.settle()
    assert one.messages == sent[:1]
    assert rest.messages == sent[:3]


def test_unsubscribing_stops_messages_and_lets_a_retained_one_come_again(rig: Rig) -> None:
    a, b = started(rig, "a"), started(rig, "b")
    first, second = Message("t/x", b"1", True), Message("t/x", b"2", True)
    delivered(rig, a, first)
    subscribed(rig, b, "t/x")
    rig.until(lambda: b.messages == [first])
    b.link.unsubscribe(["t/x"])
    rig.settle()
    delivered(rig, a, second)
    rig.settle()
    assert b.messages == [first]
    subscribed(rig, b, "t/x")
    rig.until(lambda: b.messages == [first, second])


def test_unsubscribe_and_subscribe_in_one_breath_keep_their_order(rig: Rig) -> None:
    a, b = started(rig, "a"), started(rig, "b")
    kept = Message("t/x", b"1", True)
    delivered(rig, a, kept)
    subscribed(rig, b, "t/x")
    rig.until(lambda: b.messages == [kept])
    b.link.unsubscribe(["t/x"])
    b.link.subscribe(["t/x"])
    rig.until(lambda: b.messages == [kept, kept])


def test_a_link_survives_a_restart_of_the_broker_and_starts_clean(rig: Rig) -> None:
    a, b = started(rig, "a"), started(rig, "b")
    subscribed(rig, b, "t/x")
    rig.restart()
    rig.until(lambda: a.generations == [1, 2] and b.generations == [1, 2])
    assert len(b.losses) >= 1
    delivered(rig, a, Message("t/x", b"unheard"))
    rig.settle()
    assert b.messages == []
    subscribed(rig, b, "t/x")
    delivered(rig, a, Message("t/x", b"heard"))
    rig.until(lambda: b.messages == [Message("t/x", b"heard")])


def test_a_link_without_a_line_says_so_and_takes_nothing(rig: Rig) -> None:
    a = started(rig, "a")
    rig.cut("a")
    rig.until(lambda: not a.link.connected and bool(a.losses))
    with pytest.raises(NotConnected):
        a.link.publish(Message("t/x", b""))
    a.link.subscribe(["t/x"])
    a.link.unsubscribe(["t/x"])
    rig.settle()
    assert a.generations == [1]
    rig.heal("a")
    rig.until(lambda: a.generations == [1, 2])
    rig.settle()
    assert not any(isinstance(e, Subscribed) for e in a.events)


def test_a_link_that_was_never_started_takes_nothing(rig: Rig) -> None:
    a = rig.client("a")
    with pytest.raises(NotConnected):
        a.link.publish(Message("t/x", b""))
    a.link.subscribe(["t/x"])
    a.link.close()
    assert a.events == []


def test_what_was_on_a_line_that_broke_is_never_acknowledged(rig: Rig) -> None:
    a, b = started(rig, "a"), started(rig, "b")
    subscribed(rig, b, "t/x")
    rig.freeze("a")
    lost = [a.link.publish(Message("t/x", b"lost")) for _ in range(5)]
    rig.cut("a")
    rig.until(lambda: bool(a.losses))
    rig.heal("a")
    rig.until(lambda: a.generations == [1, 2])
    delivered(rig, a, Message("t/x", b"again"))
    rig.settle()
    assert not set(lost) & set(a.acknowledged)
    assert b.messages == [Message("t/x", b"again")]


def test_the_will_is_sent_when_a_line_breaks_and_kept(rig: Rig) -> None:
    will = Message("t/store/7/status", b"offline", True, "text/plain", {"id": "7"})
    watch = started(rig, "watch")
    started(rig, "a", will)
    subscribed(rig, watch, will.topic)
    rig.cut("a")
    rig.until(lambda: [m.payload for m in watch.messages] == [b"offline"])
    late = started(rig, "late")
    subscribed(rig, late, will.topic)
    rig.until(lambda: late.messages == [will])


def test_closing_sends_what_waits_but_no_will_and_no_event(rig: Rig) -> None:
    watch, a = started(rig, "watch"), started(rig, "a", Message("t/x", b"will"))
    subscribed(rig, watch, "t/x")
    a.link.publish(Message("t/x", b"last words"))
    a.link.close()
    heard = list(a.events)
    rig.until(lambda: bool(watch.messages))
    rig.settle()
    assert [m.payload for m in watch.messages] == [b"last words"]
    assert a.events == heard
    assert a.losses == []
    assert not a.link.connected
    with pytest.raises(NotConnected):
        a.link.publish(Message("t/x", b""))
    a.link.close()
