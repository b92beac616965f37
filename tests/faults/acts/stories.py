"""The stories of the storage tests: histories of HQ, made from seeds, and the messages that carry them to a store.

The messages are written by `storelink.contract.messages`, whose bytes have tests of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from random import Random

from storelink.contract.contexts import BUILT_IN
from storelink.contract.messages import (
    Head,
    Live,
    Message,
    Segment,
    SegmentRef,
    encode_head,
    encode_live,
    encode_segment,
)
from storelink.contract.streams import Stream
from tests.faults.scale import seeded
from tests.oracle.history import History, Key, Row, Text, digest_of

ROOT = "t"
AT_MS = 1_760_000_000_000
OLD_EPOCH, NEW_EPOCH = "0199c0000000-00000001", "0199c0000001-00000002"


class Story(History):
    """A history with the messages that carry it to a store."""

    def live(self, after: int, upto: int) -> Iterator[Message]:
        """The change sets behind `after`; one of several changes comes in two messages, the second one ends it."""
        for first, last in ((a + 1, b) for a, b in zip(self.ends, self.ends[1:], strict=False) if after <= a < upto):
            middle = (first + last) // 2
            for one, end in ((first, middle), (middle + 1, last)) if middle < last else ((first, last),):
                yield self._live(one, end, commit=end == last)

    def heartbeat(self, seq: int, at_ms: int) -> Message:
        return self._live(seq + 1, seq, commit=True, at_ms=at_ms)

    def retained(self, seq: int, sealed: int, segment_rows: int) -> Iterator[Message]:
        """The head at `seq` and the segments that it names; `sealed` is where the tail begins."""
        newest: dict[Key, int] = {key: number for number, (key, _) in enumerate(self.log[:seq], 1)}
        stream, refs = Stream.parse(self.name, BUILT_IN), []
        for first in range(1, sealed + 1, segment_rows):
            last = min(first + segment_rows - 1, sealed)
            message = encode_segment(
                ROOT, Segment(stream, self.epoch, first, last, *self._rows(newest, first, last)), AT_MS
            )
            count = sum(first <= n <= last for n in newest.values())
            refs.append(SegmentRef(first, last, count, len(message.payload), sha256(message.payload).hexdigest()))
            yield message
        state = self.state_at(seq)
        tail = self._rows(newest, sealed + 1, seq)
        yield encode_head(
            ROOT, Head(stream, self.epoch, seq, digest_of(state), len(state), 0, AT_MS, tuple(refs), *tail)
        )

    def _rows(self, newest: dict[Key, int], first: int, last: int) -> tuple[list[Row], list[Row]]:
        rows: list[Row] = []
        deleted: list[Row] = []
        for number in range(first, last + 1):
            key, values = self.log[number - 1]
            if newest[key] == number:
                (deleted if values is None else rows).append((number, *key, *(values or ())))
        return rows, deleted

    def _live(self, first: int, last: int, *, commit: bool, at_ms: int = AT_MS) -> Message:
        changes = [(n, *self.log[n - 1]) for n in range(first, last + 1)]
        before, after = (digest_of(self.state_at(n)) for n in (first - 1, last))
        rows: list[Row] = [(n, *key, *values) for n, key, values in changes if values is not None]
        deleted: list[Row] = [(n, *key) for n, key, values in changes if values is None]
        live = Live(
            Stream.parse(self.name, BUILT_IN),
            self.epoch,
            first,
            last,
            before,
            after,
            commit,
            at_ms,
            rows,
            deleted,
            [()] * len(rows),
        )
        return encode_live(ROOT, live)


def story(name: str, seed: int, *, entities: int, sets: int, epoch: str = OLD_EPOCH) -> Story:
    """A first change set with every entity, then `sets` small ones that change, delete and bring back."""
    rng, found = seeded(f"{name} {seed}"), Story(name, epoch)
    keys = [(f"{4000 + n}",) if name.startswith("product") else (f"{4000 + n}", "regular") for n in range(entities)]
    alive = set(keys)
    found.ask((key, _values(name, rng)) for key in keys)
    for _ in range(sets):
        changes: list[tuple[Key, Row | None]] = []
        for key in rng.sample(keys, rng.randint(2, 5)):
            gone = key in alive and rng.random() < 0.2
            changes.append((key, None if gone else _values(name, rng)))
            alive ^= {key} if gone or key not in alive else set()
        found.ask(changes)
    return found


def _values(name: str, rng: Random) -> tuple[Text, ...]:
    if name.startswith("price"):
        return "EUR", f"[[1700000000,null,{rng.randint(1, 99_999)}]]"
    words = [f"{rng.choice(('milk', 'bread', 'tea', 'rice', 'soap'))}{rng.randint(0, 999)}" for _ in range(3)]
    gtin = f"{rng.randint(10**12, 10**13 - 1)}" if rng.random() < 0.8 else None
    return gtin, " ".join(words), None, words[0], "food", None, None, "1 kg", None, None, "active", None
