"""A capped catch-up: what it asks for over time, and that waiting for one's own pace is not a broker's delay."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from storelink.contract.contexts import BUILT_IN
from storelink.contract.messages import Message, SegmentRef
from storelink.contract.streams import Stream
from storenode.core.rate_limit import Pace
from storenode.core.refusals import Refusals
from storenode.follow.fetch import LINE_BYTES_PER_MS_MIN, TIMEOUT_MS, Fetch
from storenode.follow.spool import MemorySpool

STREAM = Stream.parse("price/all", BUILT_IN)
SIZE_BYTES = 50_000


def test_over_a_long_while_no_more_is_asked_for_than_the_cap() -> None:
    pace = Pace(max_kbps=800)  # 100,000 bytes a second
    asked_bytes = 0
    for now_ms in range(0, 60_000, 10):
        while pace.allows(now_ms):
            pace.charge(SIZE_BYTES)
            asked_bytes += SIZE_BYTES
    assert 60 * 100_000 - SIZE_BYTES <= asked_bytes <= 61 * 100_000 + SIZE_BYTES


def test_a_long_rest_earns_no_more_than_a_second() -> None:
    pace = Pace(max_kbps=800)
    assert pace.allows(0)
    assert pace.allows(3_600_000)
    pace.charge(100_000)
    assert pace.allows(3_600_000)
    pace.charge(1)
    assert not pace.allows(3_600_000)


def test_without_a_cap_everything_is_allowed() -> None:
    pace = Pace()
    pace.charge(10**12)
    assert pace.allows(0)


class Asked:
    """The side of a link that a fetch uses, written down."""

    connected = True

    def __init__(self) -> None:
        self.topics: list[str] = []

    def start(self) -> None: ...

    def publish(self, message: Message) -> int:
        raise AssertionError(message)

    def subscribe(self, topics: Sequence[str]) -> None:
        self.topics += topics

    def unsubscribe(self, topics: Sequence[str]) -> None: ...

    def close(self) -> None: ...


def refs(count: int) -> list[SegmentRef]:
    return [SegmentRef(n, n, 1, SIZE_BYTES, sha256(b"%d" % n).hexdigest()) for n in range(1, count + 1)]


def fetching(count: int, max_kbps: int) -> tuple[Fetch, Asked]:
    link = Asked()
    fetch = Fetch(STREAM, "t", MemorySpool(), link, Pace(max_kbps), Refusals(None))
    fetch.want(refs(count), 0)
    return fetch, link


def test_a_capped_fetch_asks_for_one_segment_after_the_other() -> None:
    fetch, link = fetching(3, max_kbps=400)  # 50,000 bytes a second
    assert link.topics == ["t/segment/price/all/1-1"]
    assert fetch.take("t/segment/price/all/1-1", b"1", 100, 0)
    fetch.fill_window(900)
    assert len(link.topics) == 1
    fetch.fill_window(1_000)
    assert link.topics == ["t/segment/price/all/1-1", "t/segment/price/all/2-2"]
    assert fetch.missing == 2


def test_waiting_for_ones_own_pace_is_never_late_but_waiting_for_the_broker_is() -> None:
    fetch, _ = fetching(2, max_kbps=32)  # a segment in 12.5 s
    given_ms = TIMEOUT_MS + SIZE_BYTES // LINE_BYTES_PER_MS_MIN
    assert not fetch.is_late(given_ms - 1)
    assert fetch.is_late(given_ms)
    fetch, _ = fetching(2, max_kbps=32)
    assert fetch.take("t/segment/price/all/1-1", b"1", 1, 0)
    assert not fetch.is_late(12_000)


def test_what_the_spool_has_is_not_asked_for_again() -> None:
    link, spool = Asked(), MemorySpool()
    first, second = refs(2)
    spool.put(first.sha256, b"1")
    fetch = Fetch(STREAM, "t", spool, link, Pace(), Refusals(None))
    fetch.want([first, second], 0)
    assert link.topics == ["t/segment/price/all/2-2"]
