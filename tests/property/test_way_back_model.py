"""HQ's inbox against a dict: whatever comes, however often, in whatever order: each entry is kept once, in order."""

from __future__ import annotations

import itertools
import random
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hq.collect.inbox import StoreInbox
from hq.collect.receiver import Receiver
from storelink.contract.messages import Message
from storelink.contract.upstream import Ack, Entry, OutboxBatch, Refusal, decode_ack, encode_batch
from storelink.transport.memory import MemoryBroker, MemoryLink
from storelink.transport.port import Connected, LinkEvent, Received

EPOCHS = ("019b76da1000-00000001", "019b76da1000-00000002")
STORES = ("a", "b")
Name = tuple[str, str]


@st.composite
def sendings(draw: st.DrawFn) -> tuple[str, str, int, int, bool]:
    """A store, one of its outboxes, a range that it sends, and whether HQ's turn ends (or HQ dies) behind it."""
    first = draw(st.integers(1, 12))
    ends = draw(st.booleans())
    return draw(st.sampled_from(STORES)), draw(st.sampled_from(EPOCHS)), first, first + draw(st.integers(0, 5)), ends


def batch_of(store: str, epoch: str, first: int, last: int, acked: int) -> OutboxBatch:
    """Every seq has one content for ever; each fifth is withheld."""
    entries = [Entry(seq, "x", seq, f'"{store}/{epoch}/{seq}"') for seq in range(first, last + 1) if seq % 5]
    withheld = [Refusal(seq, "oversized") for seq in range(first, last + 1) if not seq % 5]
    return OutboxBatch(store, epoch, first, last, acked, entries, withheld)


class Recorder(MemoryLink):
    """A link whose publishes are looked at and go nowhere."""

    def __init__(self, sink: list[LinkEvent]) -> None:
        super().__init__(MemoryBroker(random.Random(0)), "hq", sink.append)
        self.acks: list[Ack] = []

    def publish(self, message: Message) -> int:
        self.acks.append(decode_ack("t", message))
        return len(self.acks)


@settings(max_examples=300, deadline=None)
@given(st.lists(sendings(), max_size=40), st.lists(st.booleans(), min_size=40, max_size=40))
def test_each_entry_is_kept_once_and_in_order_and_acknowledged_no_further(
    sent: list[tuple[str, str, int, int, bool]], dies: list[bool]
) -> None:
    through: dict[Name, int] = dict.fromkeys(itertools.product(STORES, EPOCHS), 0)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "hq.inbox.db"
        inbox, link = StoreInbox.open(path), Recorder([])
        inbox.connection.execute("PRAGMA synchronous = OFF")
        collector = Receiver("t", inbox, link)
        collector.handle(Connected(1), 0, 0)
        turn: list[tuple[Name, int, int]] = []
        for (store, epoch, first, last, ends), dead in zip(sent, dies, strict=False):
            # A store never claims more than HQ has told it, and never sends again what it was told is there.
            acked = min(through[store, epoch], first - 1)
            message = encode_batch("t", batch_of(store, epoch, first, last, acked), 1)
            collector.handle(Received(message), 0, 1)
            turn.append(((store, epoch), first, last))
            if not ends:
                continue
            if dead:
                inbox.connection.close()
                inbox = StoreInbox.open(path)
                inbox.connection.execute("PRAGMA synchronous = OFF")
                collector = Receiver("t", inbox, link)
                collector.handle(Connected(1), 0, 0)
            else:
                link.acks.clear()
                collector.flush(0, 1)
                for name, begin, end in turn:
                    if begin <= through[name] + 1:
                        through[name] = max(through[name], end)
                told = {(a.store, a.outbox): a.seq for a in link.acks if a.seq or not a.resend}
                assert all(seq == through[name] for name, seq in told.items())
            turn = []
        for name, end in through.items():
            rows = inbox.connection.execute(
                "SELECT seq, data FROM entries WHERE store = ? AND epoch = ? ORDER BY position", name
            ).fetchall()
            assert rows == [(n, f'"{name[0]}/{name[1]}/{n}"') for n in range(1, end + 1) if n % 5]
            refused = [r.seq for r in inbox.refused(*name, 0, 100)]
            assert refused == [n for n in range(1, end + 1) if not n % 5]
        inbox.connection.close()
