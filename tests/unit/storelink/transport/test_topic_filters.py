"""Topic filters: MQTT 5's own examples (section 4.7), and subscribers in a fixed order."""

from __future__ import annotations

import pytest

from storelink.transport.topic_filters import Subscriptions, matches, select


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("sport/tennis/player1", "sport/tennis/player1", True),
        ("sport/tennis/player1", "sport/tennis/player2", False),
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sports", False),
        ("#", "a/b/c", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("+/b/#", "a/b/c/d", True),
        ("+/b/#", "a/c/d", False),
    ],
)
def test_a_filter_matches_as_the_standard_says(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter.split("/"), topic.split("/")) is expected
    assert select({topic: 1}, topic_filter) == ([1] if expected else [])
    subscriptions: Subscriptions[str] = Subscriptions()
    subscriptions.add(topic_filter, "a")
    assert subscriptions.of(topic) == (["a"] if expected else [])


def test_a_subscriber_gets_a_message_once_however_often_it_matches() -> None:
    subscriptions: Subscriptions[str] = Subscriptions()
    for topic_filter, who in (("a/b", "x"), ("a/+", "x"), ("#", "y"), ("a/b", "y"), ("a/b", "x")):
        subscriptions.add(topic_filter, who)
    assert subscriptions.of("a/b") == ["x", "y"]


def test_a_removed_filter_is_gone_and_others_stay() -> None:
    subscriptions: Subscriptions[str] = Subscriptions()
    for topic_filter in ("a", "+", "b"):
        subscriptions.add(topic_filter, "x")
    subscriptions.add("a", "y")
    subscriptions.remove("a", "x")
    subscriptions.remove("+", "x")
    subscriptions.remove("never", "x")
    assert (subscriptions.of("a"), subscriptions.of("b"), subscriptions.of("c")) == (["y"], ["x"], [])


def test_what_is_kept_comes_in_the_order_of_keeping() -> None:
    assert select({"b": 1, "a": 2, "c/d": 3}, "+") == [1, 2]
