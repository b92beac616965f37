"""Topic filters for the in-memory broker: who subscribed to what (MQTT 5, section 4.7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

S = TypeVar("S")
V = TypeVar("V")


def is_wild(topic_filter: str) -> bool:
    return "+" in topic_filter or "#" in topic_filter


def matches(parts: Sequence[str], levels: Sequence[str]) -> bool:
    """Whether a filter matches a topic, both taken apart at the slashes."""
    for i, part in enumerate(parts):
        if part == "#":
            return True
        if i >= len(levels) or part not in ("+", levels[i]):
            return False
    return len(parts) == len(levels)


def select(by_topic: Mapping[str, V], topic_filter: str) -> list[V]:
    """What is kept under the topics that a filter matches, in the mapping's order."""
    if not is_wild(topic_filter):
        return [by_topic[topic_filter]] if topic_filter in by_topic else []
    parts = topic_filter.split("/")
    return [value for topic, value in by_topic.items() if matches(parts, topic.split("/"))]


class Subscriptions(Generic[S]):
    """Subscribers by filter, always in the order in which they subscribed: a simulation must repeat itself exactly."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[S, None]] = {}
        self._wild: dict[tuple[str, S], list[str]] = {}

    def add(self, topic_filter: str, subscriber: S) -> None:
        if is_wild(topic_filter):
            self._wild[topic_filter, subscriber] = topic_filter.split("/")
        else:
            self._exact.setdefault(topic_filter, {})[subscriber] = None

    def remove(self, topic_filter: str, subscriber: S) -> None:
        self._wild.pop((topic_filter, subscriber), None)
        found = self._exact.get(topic_filter, {})
        found.pop(subscriber, None)
        if not found:
            self._exact.pop(topic_filter, None)

    def of(self, topic: str) -> list[S]:
        """Each subscriber that gets a message of this topic, once."""
        found = dict(self._exact.get(topic, {}))
        if self._wild:
            levels = topic.split("/")
            found |= {subscriber: None for (_, subscriber), parts in self._wild.items() if matches(parts, levels)}
        return list(found)
