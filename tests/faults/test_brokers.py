"""Brokers that are killed and come back with an empty, cut, blanked or altered store: history is complete again soon.

What the broker gives is held against the model by a reader of its own, which folds head and segments as the protocol
says; the store that lived through it is held against the model too, and so is HQ's inbox.
"""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from storelink.contract.contexts import BUILT_IN
from storelink.contract.errors import ContractViolation
from storelink.contract.messages import Head, Message, decode_head, decode_segment
from storelink.contract.streams import head_topic, segment_topic
from storelink.transport.mqtt import MqttLink
from storelink.transport.port import Connected, LinkEvent, Received
from storelink.transport.url import BrokerUrl
from testbed.broker import MOSQUITTO, Broker
from testbed.process import until
from tests.faults.chaos import HEALED_S, PRICE, Load, Site, Traffic, connected, figures
from tests.faults.scale import SEED, scaled
from tests.oracle.prices import last_amount, read_replica

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: there is no store to damage")

ROUNDS = scaled(20)
ROWS = 3_000
ROOT = "storenode"


class Historian:
    """Reads what the broker keeps of `price/all`, over a connection of its own."""

    def __init__(self, port: int) -> None:
        self._events: list[LinkEvent] = []
        self._link = MqttLink(BrokerUrl.parse(f"mqtt://127.0.0.1:{port}"), "historian", self._events.append)
        self._link.start()
        until(lambda: any(isinstance(e, Connected) for e in self._events), "the historian is connected")

    def close(self) -> None:
        self._link.close()

    def amounts(self) -> dict[str, int] | None:
        """The state that head and segments tell; None while they are not complete and sound."""
        message = self.fetch(head_topic(ROOT, PRICE))
        if message is None:
            return None
        try:
            return self._fold(decode_head(ROOT, message, BUILT_IN))
        except ContractViolation:
            return None

    def _fold(self, head: Head) -> dict[str, int] | None:
        rows: dict[str, int] = {}
        for ref in head.segments:
            message = self.fetch(segment_topic(ROOT, PRICE, ref.first, ref.last))
            if message is None or sha256(message.payload).hexdigest() != ref.sha256:
                return None
            segment = decode_segment(ROOT, message, BUILT_IN)
            _fold_in(rows, segment.rows, segment.deleted)
        _fold_in(rows, head.tail_rows, head.tail_deleted)
        return rows

    def fetch(self, topic: str, timeout_s: float = 2.0) -> Message | None:
        """One retained message; None if none comes."""
        self._events.clear()
        self._link.unsubscribe([topic])
        self._link.subscribe([topic])
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            for event in self._events:
                if isinstance(event, Received) and event.message.topic == topic:
                    return event.message
            time.sleep(0.01)
        return None


def _fold_in(rows: dict[str, int], written: object, deleted: object) -> None:
    newest: list[tuple[int, str, int | None]] = []
    newest += [(seq, sku, last_amount(schedule)) for seq, sku, _, _, schedule in written]  # type: ignore[attr-defined]
    newest += [(seq, sku, None) for seq, sku, _ in deleted]  # type: ignore[attr-defined]
    for _, sku, amount in sorted(newest):
        if amount is None:
            rows.pop(sku, None)
        else:
            rows[sku] = amount


def saved(site: Site) -> Path:
    """Let mosquitto write its store now (SIGUSR1), then kill it; returns the file."""
    file = site.directory / "mosquitto.db"
    before = file.stat().st_mtime_ns if file.exists() else 0
    os.kill(site.broker.pid, signal.SIGUSR1)
    until(lambda: file.exists() and file.stat().st_mtime_ns != before, "mosquitto has saved its store")
    site.broker.kill()
    return file


def damage(kind: str, file: Path, rng: random.Random) -> None:
    """Do to a broker's store what a crash or a disk does."""
    whole = bytearray(file.read_bytes())
    match kind:
        case "empty":
            file.write_bytes(b"")
        case "gone":
            file.unlink()
        case "truncated":
            file.write_bytes(whole[: rng.randrange(1, len(whole))])
        case "blank":
            file.write_bytes(bytes(len(whole)))
        case "flipped":
            for _ in range(rng.choice((1, 1, 10, 1_000))):
                whole[rng.randrange(20, len(whole))] ^= 1 << rng.randrange(8)
            file.write_bytes(whole)


def started(broker: Broker, file: Path) -> bool:
    """Start a broker; one that refuses its store gets an empty one, as an operator would do. True if it took it."""
    try:
        broker.start()
    except RuntimeError:
        file.unlink(missing_ok=True)
        broker.start()
        return False
    return True


KINDS = (
    "as saved",
    "empty",
    "truncated",
    "flipped",
    "gone",
    "flipped",
    "blank",
    "flipped",
    "kill -9 unsaved",
    "flipped",
)


def test_a_broker_with_a_lost_or_damaged_store_has_its_whole_history_again(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(SEED)
    site.hq_run.start()
    site.desk({f"row-{n}": rng.randrange(10**9) for n in range(ROWS)})
    site.open_store("s")
    site.wait_clean("s", 40.0)
    refused, worst_s = 0, 0.0
    with Load(site, per_s=100) as load, Traffic(site, "s") as traffic:
        for number in range(ROUNDS):
            kind = KINDS[number % len(KINDS)]
            site.desk({f"row-{n}": rng.randrange(10**9) for n in rng.sample(range(ROWS), 500)})
            if kind == "kill -9 unsaved":
                site.broker.kill()
            else:
                damage(kind, file := saved(site), rng)
            refused += not started(site.broker, file)
            worst_s = max(worst_s, complete_again_s(site, load, f"round {number}, {kind}"))
            load.go_on()
        load.hold()
        traffic.hold()
        site.wait_sent("s", HEALED_S)
    assert site.inbox_verdict("s").ok
    assert site.equal("s")
    figures(
        capfd,
        f"brokers: {ROUNDS} times killed and started with a lost or damaged store ({refused} of them refused by"
        f" mosquitto); history complete and the store level within {worst_s:.1f} s;"
        f" {site.model.head} changes, {len(site.accepted['s'])} entries, 0 lost, 0 double, 0 wrong",
    )


def test_a_kept_head_that_no_store_can_read_is_replaced_though_its_payload_is_whole(site: Site) -> None:
    """One bit of its content type: HQ compared the payload only, and every new store refused the head for ever."""
    site.hq_run.start()
    site.desk({f"row-{n}": n for n in range(ROWS)})
    site.wait_published()
    file = saved(site)
    whole = file.read_bytes()
    assert b"application/zstd" in whole
    file.write_bytes(whole.replace(b"application/zstd", b"application/zste"))
    site.broker.start()
    site.open_store("new")
    site.wait_clean("new", HEALED_S)


def test_a_price_altered_in_a_kept_head_is_found_by_a_proof_and_healed_once_the_head_is(site: Site) -> None:
    """
    Segments are named by their hash, the head by nothing: until heads are signed, a store believes the broker.

    Its proof at the start told it, and it rebuilt from the same head, after which nobody asked again: the wrong price
    stayed, also when HQ had mended the head (same position, same digest), until the next night.
    """
    site.hq_run.start()
    site.desk({"row-1": 1111})
    site.wait_published()
    site.hq_run.stop()
    file = saved(site)
    whole = file.read_bytes()
    assert b"null,1111]" in whole
    file.write_bytes(whole.replace(b"null,1111]", b"null,1131]"))
    site.broker.start()
    store = site.open_store("s")
    until(lambda: "rebuild.started" in store.log.read_text(), "the store has found what it was told to be wrong")
    until(lambda: read_amounts(site, "s") == {"row-1": 1131}, "there is nothing else to believe")
    site.hq_run.start()
    site.wait_clean("s", HEALED_S)


def flipped_readably(site: Site, file: Path, rng: random.Random) -> None:
    """Alter one byte of a kept segment so that it can still be read, and tells other prices."""
    historian = Historian(site.port)
    try:
        head = historian.fetch(head_topic(ROOT, PRICE))
        assert head is not None
        ref = decode_head(ROOT, head, BUILT_IN).segments[0]
        message = historian.fetch(segment_topic(ROOT, PRICE, ref.first, ref.last))
    finally:
        historian.close()
    assert message is not None
    rows = decode_segment(ROOT, message, BUILT_IN).rows
    saved(site)
    whole = bytearray(file.read_bytes())
    start = whole.find(message.payload)
    assert start >= 0
    for _ in range(20_000):
        at, bit = rng.randrange(len(message.payload)), 1 << rng.randrange(8)
        payload = bytearray(message.payload)
        payload[at] ^= bit
        try:
            told = decode_segment(ROOT, replace(message, payload=bytes(payload)), BUILT_IN).rows
        except ContractViolation:
            continue
        if told != rows:
            whole[start + at] ^= bit
            file.write_bytes(whole)
            return
    pytest.fail("no flip could be read")


def test_control_a_store_that_checks_no_digest_is_caught_and_one_that_does_waits_for_hq(site: Site) -> None:
    """One altered byte in a segment, with HQ off: the believer holds what HQ never had, the other nothing."""
    rng = random.Random(SEED)
    site.hq_run.start()
    for _ in range(4):
        site.desk({f"row-{n}": rng.randrange(10**9) for n in rng.sample(range(10 * ROWS), 2 * ROWS)})
    site.wait_published()
    site.hq_run.stop()
    flipped_readably(site, site.directory / "mosquitto.db", rng)
    site.broker.start()
    site.open_store("believer", sabotage="digest_off")
    site.open_store("careful")
    until(lambda: connected(site.replica("careful")), "the careful store is connected")
    until(lambda: bool(read_amounts(site, "believer")), "the believer is filled")
    assert not site.verdict("believer").ok
    assert not read_amounts(site, "careful")
    site.hq_run.start()
    site.wait_clean("careful", HEALED_S)


def read_amounts(site: Site, name: str) -> dict[str, int]:
    found = read_replica(site.replica(name))
    return found.amounts if found else {}


def complete_again_s(site: Site, load: Load, what: str) -> float:
    """Wait until broker and store hold what the model does, the load held; returns the seconds it took."""
    began_s = time.monotonic()
    historian = Historian(site.port)
    try:
        load.hold()
        until(lambda: historian.amounts() == site.model.amounts, f"{what}: the broker's history is complete", HEALED_S)
        until(lambda: site.verdict("s").ok, f"{what}: the store is right: {site.verdict('s')}", HEALED_S)
    finally:
        historian.close()
    return time.monotonic() - began_s
