"""Light stores: hundreds of clients in one process and one loop, which speak the protocol that a store speaks.

A light store reads the retained head, plans, and fetches with the store's own code (`storelink.contract.messages`,
`storenode.core.verdicts`, `storenode.follow.fetch`); each segment is checked against the head's SHA-256. What it leaves
out is everything behind the spool: it keeps digests instead of bytes, decodes no segment and writes no row.
"""

from __future__ import annotations

import json
import select
import sys
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

import click

from storelink.contract.contexts import BUILT_IN
from storelink.contract.messages import Message, decode_head, decode_live
from storelink.contract.rows import EMPTY
from storelink.contract.streams import Stream, head_topic, live_topic
from storenode.core.rate_limit import Pace
from storenode.core.refusals import Refusals
from storenode.core.verdicts import CatchUp, Position, plan
from storenode.follow.fetch import Fetch
from testbed import mqtt_packets as packets
from testbed.mqtt_client import Client, Loop

CATCH_UP_TIMEOUT_S = 120.0
HEARD_TIMEOUT_S = 30.0
PRICES = Stream.parse("price/all", BUILT_IN)
STREAMS = (Stream.parse("product/all", BUILT_IN), PRICES)


class DigestSpool:
    """What has arrived and been checked, by its SHA-256; the bytes themselves are let go."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def has(self, digest: str) -> bool:
        return digest in self._known

    def put(self, digest: str, payload: bytes) -> None:
        del payload
        self._known.add(digest)

    def get(self, digest: str) -> bytes | None:
        del digest
        return None

    def sweep(self, keep: Collection[str]) -> None:
        self._known &= set(keep)


@dataclass(slots=True)
class _Following:
    """One stream of a light store."""

    stream: Stream
    fetch: Fetch
    planned: bool = False
    done: bool = False


@dataclass(slots=True)
class Tally:
    """What all clients of a process have got."""

    arrived: int = 0
    bytes: int = 0
    live: int = 0
    live_bytes: int = 0
    rejected: int = 0


class LightStore:
    """Catches up with every stream from nothing, then hears what is live."""

    def __init__(self, loop: Loop, port: int, root: str, name: str, tally: Tally) -> None:
        self.client = Client(loop, port, name, self.receive)
        self._root = root
        self._tally = tally
        self._following = {
            stream: _Following(stream, Fetch(stream, root, DigestSpool(), self.client, Pace(), Refusals(None)))
            for stream in STREAMS
        }
        self._heads = {head_topic(root, stream): stream for stream in STREAMS}
        self._lives = {live_topic(root, stream) for stream in STREAMS}
        self._newest: dict[str, Message] = {}

    def begin(self) -> None:
        """What `storenode.follow.follower` does on a new connection."""
        for stream in STREAMS:
            self.client.subscribe([live_topic(self._root, stream)])
            self.client.subscribe([head_topic(self._root, stream)])

    def heard_to(self, stream: Stream) -> int:
        """The last seq of the newest live message of a stream; 0 before one came."""
        newest = self._newest.get(live_topic(self._root, stream))
        return 0 if newest is None else decode_live(self._root, newest, BUILT_IN).last

    def receive(self, message: packets.Publish) -> None:
        if message.topic in self._lives:
            self._tally.live += 1
            self._tally.live_bytes += len(message.payload)
            self._newest[message.topic] = Message(
                message.topic, bytes(message.payload), content_type=message.content_type
            )
            return
        payload = bytes(message.payload)
        self._tally.bytes += len(payload)
        if message.topic in self._heads:
            following = self._following[self._heads[message.topic]]
            self._take_head(following, Message(message.topic, payload, True, message.content_type))
        else:
            following = self._following[self._stream_of(message.topic)]
            self._tally.rejected += not following.fetch.take(message.topic, payload, _now_ms(), 0)
        if following.planned and not following.done and not following.fetch.missing:
            following.done = True
            self.client.unsubscribe([head_topic(self._root, following.stream)])
            self._tally.arrived += all(f.done for f in self._following.values())

    def _take_head(self, following: _Following, message: Message) -> None:
        decision = plan(Position(None, 0, EMPTY), decode_head(self._root, message, BUILT_IN))
        if following.done or not isinstance(decision, CatchUp):
            return
        following.planned = True
        following.fetch.want(decision.needed, _now_ms())

    def _stream_of(self, topic: str) -> Stream:
        context, scope = topic.removeprefix(f"{self._root}/segment/").split("/")[:2]
        return Stream(BUILT_IN[context], scope)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class PlainSubscriber:
    """Takes everything that the broker keeps with two filters and counts its bytes; hashes it, too, if told so."""

    def __init__(
        self, loop: Loop, port: int, root: str, name: str, tally: Tally, bytes_each: int, *, hashes: bool
    ) -> None:
        self.client = Client(loop, port, name, self._receive)
        self._hashes = hashes
        self._root = root
        self._tally = tally
        self._lacking = bytes_each

    def begin(self) -> None:
        self.client.subscribe([f"{self._root}/segment/#", f"{self._root}/head/#"])

    def _receive(self, message: packets.Publish) -> None:
        lacked, self._lacking = self._lacking, self._lacking - len(message.payload)
        self._tally.bytes += len(message.payload)
        if self._hashes:
            sha256(bytes(message.payload)).digest()
        self._tally.arrived += lacked > 0 >= self._lacking


class Outcome(NamedTuple):
    """One line of JSON on the child's stdout."""

    seconds: float
    bytes: int
    rejected: int


def catch_up(
    loop: Loop, members: Sequence[LightStore | PlainSubscriber], tally: Tally, timeout_s: float = CATCH_UP_TIMEOUT_S
) -> Outcome:
    """Connect all, then let all begin at once; the clock runs from there until the last one has everything."""
    waiting = deque(members)
    while waiting:  # a few at a time: the broker's listen queue holds 100
        some = [waiting.popleft().client for _ in range(min(50, len(waiting)))]
        for client in some:
            client.start()
        loop.run(lambda some=some: all(c.connected for c in some), 30.0, "all connected")  # type: ignore[misc]
    began_s = time.monotonic()
    for member in members:
        member.begin()
    loop.run(lambda: tally.arrived >= len(members), timeout_s, f"all {len(members)} have everything")
    return Outcome(time.monotonic() - began_s, tally.bytes, tally.rejected)


def hear(loop: Loop, stores: Sequence[LightStore]) -> None:
    """Serve until stdin names a seq of the prices, and on until every store has heard of it. Raises TimeoutError."""
    while not select.select([sys.stdin], [], [], 0)[0]:
        loop.turn(0.05)
    named = sys.stdin.readline()
    if named:
        seq, behind = int(named), deque(stores)

        def all_there() -> bool:
            while behind and behind[0].heard_to(PRICES) >= seq:
                behind.popleft()
            return not behind

        loop.run(all_there, HEARD_TIMEOUT_S, f"all {len(stores)} have heard of {seq}")


@click.command()
@click.argument("kind", type=click.Choice(["light", "plain"]))
@click.option("--port", type=int, required=True)
@click.option("--root", default="storenode")
@click.option("--count", type=int, required=True)
@click.option("--bytes-each", type=int, default=0, help="What a plain subscriber waits for.")
@click.option("--stay", is_flag=True, help="Hear live prices up to the seq that stdin then names; tell how much.")
@click.option("--hashes", is_flag=True, help="A plain subscriber hashes what it gets, as a store does.")
def main(kind: str, port: int, root: str, count: int, bytes_each: int, stay: bool, hashes: bool) -> None:
    """Be COUNT clients of one kind; print what came about as JSON."""
    loop, tally = Loop(), Tally()
    names = [f"{kind}-{number:04}" for number in range(count)]
    members: list[LightStore | PlainSubscriber] = (
        [LightStore(loop, port, root, name, tally) for name in names]
        if kind == "light"
        else [PlainSubscriber(loop, port, root, name, tally, bytes_each, hashes=hashes) for name in names]
    )
    print(json.dumps(catch_up(loop, members, tally)._asdict()), flush=True)
    if stay:
        hear(loop, [member for member in members if isinstance(member, LightStore)])
        print(json.dumps({"live": tally.live, "live_bytes": tally.live_bytes}), flush=True)
    loop.close()


if __name__ == "__main__":
    main()
