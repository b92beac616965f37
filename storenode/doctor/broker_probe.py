"""The doctor's probe of the broker: its name, port and login, the heads that HQ left there, and whether HQ is heard."""

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
from storenode.doctor import findings
from storenode.doctor.findings import CheckResult

HEADS_S = 2.0
HEARTBEAT_S = 6.0
"""HQ sends a heartbeat every 5 s by default."""


def probe_broker(settings: Settings, status: dict[str, Any] | None) -> Iterator[CheckResult]:
    """Check name, port and login, then the heads and whether HQ is heard. `status`: the status document, if any."""
    url, step = settings.broker, "broker"
    try:
        place = reach(url, resolve(url))
        yield CheckResult(step, Finding(OK, f"{url.host} is {place}, and port {url.port} is open."))
        step = "credentials"
        with Probe(url, f"doctor-{settings.store_id}") as probe:
            probe.connect()
            yield CheckResult(step, Finding(OK, f"The broker {url} lets us in."))
            yield from _heads_and_hq(settings, probe, status)
    except Unreached as error:
        yield CheckResult(step, Finding(FAIL, str(error), error.todo))


class _Listener:
    """Takes in heads and live messages, and compares the clock with their times."""

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
                if wall_ms < at_ms:  # a head is old: it proves a clock that is behind, not one that is ahead
                    self.skew_ms = min(self.skew_ms or 0, wall_ms - at_ms)
            else:
                self.live = True
                self.skew_ms = wall_ms - decode_live(self._root, message, self._contexts).at_ms
        except ContractViolation as violation:
            self.broken.setdefault(stream, violation.detail)


def _heads_and_hq(settings: Settings, probe: Probe, status: dict[str, Any] | None) -> Iterator[CheckResult]:
    heard, streams = _Listener(settings.root, settings.registry), settings.streams()

    def all_heads(message: Message) -> bool:
        heard.take(message)
        return heard.heads >= set(streams)

    def alive(message: Message) -> bool:
        heard.take(message)
        return heard.live

    topics = [topic(settings.root, stream) for topic in (live_topic, head_topic) for stream in streams]
    probe.listen(topics, all_heads, HEADS_S)
    known = status["streams"] if status else {}
    for stream in streams:
        if stream in heard.broken:
            said = f"{stream}: what HQ sends cannot be read by this version: {heard.broken[stream][:200]}."
            yield CheckResult("head", Finding(FAIL, said, "at HQ: hq status; are both of one version?"))
        else:
            has_rows = bool(known.get(str(stream), {}).get("epoch"))
            yield CheckResult("head", findings.head(str(stream), heard=stream in heard.heads, has_rows=has_rows))
    if not heard.live:
        probe.listen((), alive, HEARTBEAT_S)
    yield CheckResult("hq", findings.hq(None if heard.live else HEARTBEAT_S))
    if heard.skew_ms is not None and (status is None or status["clock"]["verdict"] == UNCONFIRMED):
        yield CheckResult("clock", advice.clock({"skew_seconds": heard.skew_ms / 1000, "verdict": None}))
