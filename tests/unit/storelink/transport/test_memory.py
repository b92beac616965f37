"""The in-memory broker's faults: each does what its name says, and a seed decides all."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from storelink.contract.messages import Message
from storelink.transport.memory import MemoryBroker, MemoryLink
from storelink.transport.port import Connected, Disconnected, LinkEvent, Received, Subscribed


def world(seed: int = 1) -> tuple[MemoryBroker, MemoryLink, MemoryLink, list[LinkEvent], list[LinkEvent]]:
    """A broker with two clients, connected at 2,000 ms, `b` subscribed to t/x."""
    broker = MemoryBroker(random.Random(seed))
    heard_a: list[LinkEvent] = []
    heard_b: list[LinkEvent] = []
    a = MemoryLink(broker, "a", heard_a.append)
    b = MemoryLink(broker, "b", heard_b.append, Message("t/will", b"gone"))
    a.start()
    b.start()
    broker.advance(2_000)
    b.subscribe(["t/x"])
    broker.advance(2_000)
    heard_a.clear()
    heard_b.clear()
    return broker, a, b, heard_a, heard_b


def payloads(events: list[LinkEvent]) -> list[int]:
    return [int(e.message.payload) for e in events if isinstance(e, Received)]


def send(a: MemoryLink, count: int) -> None:
    for i in range(count):
        a.publish(Message("t/x", b"%d" % i))


def test_nothing_happens_but_in_advance() -> None:
    broker, a, _, heard_a, heard_b = world()
    send(a, 3)
    assert (heard_a, heard_b) == ([], [])
    broker.advance(2_000)
    assert payloads(heard_b) == [0, 1, 2]


def test_delay_is_bounded_and_keeps_order() -> None:
    broker, a, _, _, heard_b = world()
    broker.delay_ms_max = 50
    send(a, 100)
    broker.advance(2_010)
    assert len(heard_b) < 100
    broker.advance(2_100)
    assert payloads(heard_b) == list(range(100))


def test_time_never_runs_back_and_next_ms_names_the_next_delivery() -> None:
    broker, a, _, _, heard_b = world()
    broker.delay_ms_max = 50
    send(a, 1)
    due_ms = broker.next_ms()
    assert due_ms is not None and 2_000 <= due_ms <= 2_050
    broker.advance(1)
    assert broker.mono_ms == 2_000
    while (due_ms := broker.next_ms()) is not None:
        broker.advance(due_ms)
    assert payloads(heard_b) == [0]


def test_loss_takes_live_messages_only_and_keeps_acknowledging() -> None:
    broker, a, b, heard_a, heard_b = world()
    broker.loss = 0.5
    send(a, 1_000)
    broker.advance(2_000)
    assert 400 < len(heard_b) < 600
    assert len(heard_a) == 1_000
    broker.loss = 1.0
    a.publish(Message("t/kept", b"7", True))
    broker.advance(2_000)
    heard_b.clear()
    b.subscribe(["t/kept"])
    broker.advance(2_000)
    assert payloads(heard_b) == [7]


def test_a_retained_message_can_be_lost_too() -> None:
    broker, a, b, _, heard_b = world()
    broker.loss_retained = 1.0
    a.publish(Message("t/kept", b"7", True))
    b.subscribe(["t/kept"])
    broker.advance(2_000)
    b.unsubscribe(["t/kept"])
    b.subscribe(["t/kept"])
    broker.advance(2_000)
    assert payloads(heard_b) == []


def test_repeat_delivers_twice() -> None:
    broker, a, _, _, heard_b = world()
    broker.repeat = 1.0
    send(a, 10)
    broker.advance(2_010)
    assert Counter(payloads(heard_b)) == dict.fromkeys(range(10), 2)


def test_reorder_lets_later_messages_overtake() -> None:
    broker, a, _, _, heard_b = world()
    broker.delay_ms_max = 20
    broker.reorder = 0.3
    send(a, 100)
    broker.advance(3_000)
    assert sorted(payloads(heard_b)) == list(range(100)) != payloads(heard_b)


def test_a_cut_loses_what_is_in_flight_in_both_directions() -> None:
    broker, a, _, heard_a, heard_b = world()
    broker.delay_ms_max = 100
    send(a, 10)
    broker.cut("a")
    broker.cut("b")
    broker.advance(9_000)
    assert heard_a == heard_b == [Disconnected("connection lost")]
    assert not a.connected


def test_a_cut_may_be_noticed_late_and_the_client_goes_on_talking_to_nobody() -> None:
    broker, a, _, heard_a, heard_b = world()
    broker.notice_ms_max = 1_000
    broker.cut("a")
    assert a.connected
    send(a, 1)
    broker.advance(3_000)
    assert heard_a == [Disconnected("connection lost")]
    assert heard_b == []


def test_a_line_healed_before_the_cut_was_noticed_is_a_new_connection() -> None:
    broker, a, _, heard_a, _ = world()
    broker.notice_ms_max = 1_000
    broker.cut("a")
    broker.heal("a")
    broker.advance(9_000)
    assert heard_a == [Disconnected("connection lost"), Connected(2)]
    assert a.connected


def test_cutting_twice_and_healing_twice_is_like_once() -> None:
    broker, _, _, heard_a, _ = world()
    for _ in range(2):
        broker.cut("a")
        broker.advance(3_000)
    for _ in range(2):
        broker.heal("a")
    broker.advance(9_000)
    assert heard_a == [Disconnected("connection lost"), Connected(2)]


def test_a_client_that_starts_cut_connects_when_healed() -> None:
    broker, *_ = world()
    heard: list[LinkEvent] = []
    broker.cut("c")
    MemoryLink(broker, "c", heard.append).start()
    broker.advance(9_000)
    assert heard == []
    broker.heal("c")
    broker.advance(19_000)
    assert heard == [Connected(1)]


def test_a_restart_breaks_all_lines_without_wills_and_keeps_retained_messages() -> None:
    broker, a, _, heard_a, heard_b = world()
    a.subscribe(["t/will"])
    a.publish(Message("t/kept", b"7", True))
    broker.advance(2_000)
    heard_a.clear()
    broker.restart()
    broker.advance(9_000)
    assert heard_a == heard_b == [Disconnected("the broker went away"), Connected(2)]
    assert list(broker.retained) == ["t/kept"]
    broker.restart(forget=True)
    assert not broker.retained


def test_forgetting_leaves_connections_alone() -> None:
    broker, a, _, heard_a, _ = world()
    a.publish(Message("t/kept", b"7", True))
    broker.advance(2_000)
    heard_a.clear()
    broker.forget_retained()
    broker.advance(9_000)
    assert (broker.retained, heard_a) == ({}, [])


def test_an_aborted_client_is_silent_and_its_will_is_sent() -> None:
    broker, a, b, heard_a, heard_b = world()
    a.subscribe(["t/will"])
    broker.advance(2_000)
    b.abort()
    broker.advance(9_000)
    assert heard_b == []
    assert heard_a == [Subscribed(("t/will",)), Received(Message("t/will", b"gone"))]


def test_a_namesake_pushes_the_older_link_out() -> None:
    broker, a, _, heard_a, _ = world()
    heard: list[LinkEvent] = []
    MemoryLink(broker, "a", heard.append).start()
    broker.advance(19_000)
    assert heard_a == [Disconnected("session taken over")]
    assert heard == [Connected(1)]
    assert not a.connected


@pytest.mark.parametrize(("again", "expected"), [(False, [7]), (True, [7, 7])])
def test_subscribing_twice_redelivers_only_in_mosquittos_dialect(again: bool, expected: list[int]) -> None:
    broker, a, b, _, heard_b = world()
    broker.redelivers_on_resubscribe = again
    a.publish(Message("t/kept", b"7", True))
    for _ in range(2):
        b.subscribe(["t/kept"])
        broker.advance(2_000)
    assert payloads(heard_b) == expected


def test_two_clients_that_answer_each_other_for_ever_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storelink.transport.memory.EVENTS_PER_ADVANCE_MAX", 1_000)
    broker = MemoryBroker(random.Random(1))

    def answer(_: LinkEvent) -> None:
        echo.publish(Message("t/x", b""))

    echo = MemoryLink(broker, "a", answer)
    echo.start()
    with pytest.raises(RuntimeError, match="without time moving on"):
        broker.advance(2_000)


def test_a_seed_decides_everything() -> None:
    def run(seed: int) -> list[LinkEvent]:
        broker, a, b, heard_a, heard_b = world(seed)
        broker.loss, broker.repeat, broker.reorder, broker.delay_ms_max = 0.1, 0.2, 0.3, 40
        for step in range(200):
            if a.connected:
                send(a, 5)
            if step % 50 == 20:
                broker.cut("a")
            if step % 50 == 40:
                broker.heal("a")
            if b.connected and step % 30 == 0:
                b.subscribe(["t/x", "t/+"])
            broker.advance(2_000 + 100 * step)
        return heard_a + heard_b

    assert run(1) == run(1)
    assert run(1) != run(2)
