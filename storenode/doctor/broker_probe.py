"""The doctor's visit to the broker: name, port, welcome, what HQ left there, and whether HQ speaks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from storelink.contract.contexts import Contexts
from storelink.contract.errors import ContractViolation
from storelink.contract.messages import Message, decode_head, decode_live
from storelink.contract.streams import Stream, head_topic, live_topic
from storelink.transport.probe import Probe, Unreached, reach, resolve
from storenode.config import Settings
from storenode.core import advice
from storenode.core.advice import FAIL, OK, Finding
from storenode.core.clock_rules import UNCONFIRMED
from storenode.doctor import verdicts
from storenode.doctor.verdicts import Check

HEADS_S = 2.0
HEARTBEAT_S = 6.0
"""HQ sends a heartbeat every 5 s unless it is told otherwise."""


def visited(settings: Settings, facts: dict[str, Any] | None) -> Iterator[Check]:
    """Name, port, welcome, then what HQ left there and whether it speaks."""
    url, step = settings.broker, "broker"
    try:
        place = reach(url, resolve(url))
        yield Check(step, Finding(OK, f"{url.host} is {place}, and port {url.port} is open."))
        step = "credentials"
        with Probe(url, f"doctor-{settings.store_id}") as probe:
            probe.connect()
            yield Check(step, Finding(OK, f"The broker {url} lets us in."))
            yield from _hq(settings, probe, facts)
    except Unreached as error:
        yield Check(step, Finding(FAIL, str(error), error.todo))


class _Ear:
    """Hears heads and live messages; the clock by them."""

    def __init__(self, root: str, contexts: Contexts) -> None:
        self._root, self._contexts = root, contexts
        self.heads: set[Stream] = set()
        self.broken: dict[Stream, str] = {}
        self.live = False
        self.skew_ms: int | None = None

    def take(self, message: Message) -> None:
        """Take a message of a stream that is followed."""
        wall_ms = time.time_ns() // 1_000_000
        kind, _, place = message.topic.removeprefix(f"{self._root}/").partition("/")
        stream = Stream.parse(place, self._contexts)
        try:
            if kind == "head":
                self.heads.add(stream)
                at_ms = decode_head(self._root, message, self._contexts).at_ms
                if wall_ms < at_ms:  # that was some time ago: it says nothing about a clock that is ahead
                    self.skew_ms = min(self.skew_ms or 0, wall_ms - at_ms)
            else:
                self.live = True
                self.skew_ms = wall_ms - decode_live(self._root, message, self._contexts).at_ms
        except ContractViolation as violation:
            self.broken.setdefault(stream, violation.detail)


def _hq(settings: Settings, probe: Probe, facts: dict[str, Any] | None) -> Iterator[Check]:
    ear, streams = _Ear(settings.root, settings.registry), settings.streams()

    def all_heads(message: Message) -> bool:
        ear.take(message)
        return ear.heads >= set(streams)

    def alive(message: Message) -> bool:
        ear.take(message)
        return ear.live

    topics = [topic(settings.root, stream) for topic in (live_topic, head_topic) for stream in streams]
    probe.listen(topics, all_heads, HEADS_S)
    known = facts["streams"] if facts else {}
    for stream in streams:
        if stream in ear.broken:
            said = f"{stream}: what HQ sends cannot be read by this version: {ear.broken[stream][:200]}."
            yield Check("head", Finding(FAIL, said, "at HQ: hq status; are both of one version?"))
        else:
            has_rows = bool(known.get(str(stream), {}).get("epoch"))
            yield Check("head", verdicts.head(str(stream), heard=stream in ear.heads, has_rows=has_rows))
    if not ear.live:
        probe.listen((), alive, HEARTBEAT_S)
    yield Check("hq", verdicts.hq(None if ear.live else HEARTBEAT_S))
    if ear.skew_ms is not None and (facts is None or facts["clock"]["verdict"] == UNCONFIRMED):
        yield Check("clock", advice.clock({"skew_seconds": ear.skew_ms / 1000, "verdict": None}))
