"""Whose heads the broker keeps: HQ publishes nothing while one is of an epoch that its master never had.

Such a head is another master's, or of a future that this one has lost. To publish over it would take away what every
store has. Owned by the publisher's thread; it has no clock. What it knows is what the broker said over this connection:
a standing subscription to all heads, and a message of its own behind that, the *fence*. A broker hands out in order,
so once the fence is back, what the broker keeps is here. Where two HQs publish, both hear in the same order whose head
came last, so one of them falls silent, and neither answers the other.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum

import msgspec

from hq.master import epochs
from hq.master.store import Master
from storelink.contract.codec import unpack
from storelink.contract.errors import ContractViolation
from storelink.contract.messages import Message
from storelink.contract.streams import Stream, is_epoch
from storelink.contract.times import rfc3339
from storelink.host.logs import get_logger
from storelink.transport.port import Link
from storelink.transport.reconnect import BACKOFF_S_MAX

log = get_logger()

FENCE_EVERY_MS = 1_000
"""How long the fence may take before it is sent again."""

UNSEEN_MS = 10_000
"""How long the broker may take to show what it keeps before HQ says that it waits for that."""

SAID_EVERY_MS = 600_000
"""How often HQ says again why it publishes nothing."""

RECONNECT_MS = int(BACKOFF_S_MAX * 1000) + 25_000
"""After a connect, how long another HQ may take to be back on the line as well, started anew by systemd maybe."""

HINT = "hq run --take-over, if every store is to have this master's catalog instead"


class Verdict(Enum):
    """What HQ may do now."""

    WAIT = "the broker has not shown yet what it keeps"
    SILENT = "another master's heads are there, or its last word is not long ago"
    LOOK_AGAIN = "they are gone, or taken over: what the broker keeps is to be looked at once more"
    PUBLISH = "every head that the broker keeps is this master's"


@dataclass(frozen=True, slots=True)
class KeptHead:
    """A head or live batch as far as it can be read; `epochs` are those that body and event id name, if any."""

    epochs: tuple[str, ...]
    seq: int
    at_ms: int


class _Said(msgspec.Struct):
    epoch: str = ""
    seq: int = 0
    at_ms: int = 0


_decode = msgspec.json.Decoder(_Said).decode


def read_head(message: Message) -> KeptHead:
    """
    Read whose a head or live batch is, also where its context is not declared here or its version is another.

    A damaged one names its epoch in its event id still, or else in its body; one that names none is nobody's.
    """
    try:
        said = _decode(unpack(message.payload, message.content_type))
    except (ContractViolation, msgspec.MsgspecError, UnicodeError, RecursionError):
        said = _Said()
    named = (said.epoch, message.attributes.get("id", "").partition("/")[0])
    return KeptHead(tuple(e for e in named if is_epoch(e) and e < epochs.END), said.seq, max(said.at_ms, 0))


class BrokerHeads:
    """What the broker keeps as heads under a root, and whether this master may publish there.

    Attributes:
        foreign: by stream, the heads because of which HQ is silent; those last seen, once they are gone.
        contested: a head that is not this master's has come since the last judgement, or was there then.
    """

    def __init__(
        self, root: str, master: Master, link: Link, quiet_ms: int, foreign: Mapping[str, KeptHead], *, take_over: bool
    ) -> None:
        """
        Args:
            quiet_ms: how long nothing of another HQ must be heard before HQ ends its silence; two heartbeats.
            foreign: those that an earlier life of this HQ was silent about.
            take_over: publish over whatever heads are there at the first look.
        """
        self.foreign = {} if take_over else dict(foreign)
        self.contested = False
        self._root, self._master, self._link, self._quiet_ms = root, master, link, quiet_ms
        self._take_over = take_over
        self._overcome = {name: max(head.epochs) for name, head in foreign.items()}
        self._fence = f"{root}/head/-/{secrets.token_hex(4)}"
        self._fences = self._fence_first = 0
        self._kept: dict[str, KeptHead] = {}
        self._known: frozenset[str] = frozenset()
        self._shown = self._settled = False
        self._next_fence_ms = self._quiet_until_ms = self._next_said_ms = self._next_unseen_ms = 0

    @property
    def silent(self) -> bool:
        return bool(self.foreign)

    def connect(self, now_ms: int) -> None:
        """Over a new connection nothing is known; `look` follows."""
        self._kept.clear()
        self._quiet_until_ms = now_ms + self._quiet_ms + RECONNECT_MS

    def look(self, now_ms: int) -> None:
        """Ask the broker for what it keeps."""
        self._shown = self._settled = False
        self._fence_first = self._fences + 1
        self._next_unseen_ms = now_ms + UNSEEN_MS
        self._link.subscribe([f"{self._root}/head/+/+"])
        if self.silent:
            self._link.subscribe([f"{self._root}/live/+/+"])
        self._send_fence(now_ms)

    def take(self, message: Message, now_ms: int) -> bool:
        """Take a message in. True if it is nobody else's."""
        kind, _, name = message.topic.removeprefix(f"{self._root}/").partition("/")
        if message.topic == self._fence:
            self._shown = self._shown or int(message.payload or b"0") >= self._fence_first
        elif kind == "live" and self.silent and self._is_foreign(read_head(message)):
            self._quiet_until_ms = now_ms + self._quiet_ms
        if kind != "head" or name.startswith("-/"):
            return kind != "segment"
        if message.payload:
            head = self._kept[name] = read_head(message)
            self.contested = self.contested or self._is_foreign(head)
        else:
            self._kept.pop(name, None)
        return False

    def is_replaced(self, stream: Stream, epoch: str) -> bool:
        """Whether the broker keeps no head of a stream any more, or one of another epoch."""
        head = self._kept.get(str(stream))
        return head is None or epoch not in head.epochs

    def is_foreign(self, stream: Stream) -> bool:
        head = self._kept.get(str(stream))
        return head is not None and self._is_foreign(head)

    def is_ours(self, epoch: str) -> bool:
        return not self._is_foreign(KeptHead((epoch,), 0, 0))

    def judge(self, now_ms: int, wall_ms: int, ours: Collection[str], *, audited: bool) -> Verdict:
        """
        Say what HQ may do.

        Args:
            ours: the streams of this master.
            audited: each of them was asked for by its own topic, too, and has come, or is late.
        """
        if not self._shown:
            self._ask_again(now_ms)
            return Verdict.WAIT
        unknown = self._unknown()
        some_are_ours = len(unknown) < sum(bool(head.epochs) for head in self._kept.values())
        if not self._settled:
            if not audited:
                return Verdict.WAIT
            self._settled = True
            if self._take_over and (unknown or self._overcome):
                return self._adopt(unknown, wall_ms)
            self._take_over = False
            if some_are_ours and not unknown:
                self._quiet_until_ms = now_ms  # what the broker keeps is ours: nobody else is waited for
        if unknown and some_are_ours and unknown.keys().isdisjoint(ours):
            # Beside heads that are ours: of streams that this master has forgotten, as an older copy has.
            log.warning("streams.forgotten", streams=sorted(unknown))
            epochs.adopt(self._master, {name: max(head.epochs) for name, head in unknown.items()}, wall_ms)
            unknown = {}
        self.contested = bool(unknown)
        if unknown:
            self._stay_silent(unknown, now_ms)
            return Verdict.SILENT
        if self.silent:
            if now_ms < self._quiet_until_ms:
                return Verdict.SILENT
            return self._adopt({}, wall_ms)
        return Verdict.PUBLISH

    def _ask_again(self, now_ms: int) -> None:
        if now_ms >= self._next_fence_ms:
            self._send_fence(now_ms)
        if now_ms >= self._next_unseen_ms:
            self._next_unseen_ms = now_ms + SAID_EVERY_MS
            hint = f"may this user read {self._root}/head/+/+ and write {self._root}/head/-/+ at the broker?"
            log.warning("heads.unseen", root=self._root, hint=hint)

    def _send_fence(self, now_ms: int) -> None:
        self._fences += 1
        self._next_fence_ms = now_ms + FENCE_EVERY_MS
        self._link.publish(Message(self._fence, str(self._fences).encode()))

    def _stay_silent(self, unknown: dict[str, KeptHead], now_ms: int) -> None:
        if not self.silent:
            self._next_said_ms = now_ms
            self._link.subscribe([f"{self._root}/live/+/+"])
        self.foreign = unknown
        self._overcome |= {name: max(head.epochs) for name, head in unknown.items()}
        self._quiet_until_ms = now_ms + self._quiet_ms
        if now_ms >= self._next_said_ms:
            self._next_said_ms = now_ms + SAID_EVERY_MS
            heads = {name: said_of(max(head.epochs), head.seq, rfc3339(head.at_ms)) for name, head in unknown.items()}
            log.error("heads.foreign", root=self._root, heads=heads, hint=HINT)

    def _adopt(self, unknown: Mapping[str, KeptHead], wall_ms: int) -> Verdict:
        """Go on from where the others were: stores that followed them must find what follows."""
        if self._take_over:
            self._take_over = False
            log.warning("heads.taken_over", root=self._root, streams=sorted(unknown))
        else:
            log.warning("heads.gone", root=self._root, streams=sorted(self.foreign))
        self._overcome |= {name: max(head.epochs) for name, head in unknown.items()}
        epochs.adopt(self._master, self._overcome, wall_ms)
        self._overcome, self.foreign, self.contested = {}, {}, False
        self._link.unsubscribe([f"{self._root}/live/+/+"])
        return Verdict.LOOK_AGAIN

    def _unknown(self) -> dict[str, KeptHead]:
        return {name: head for name, head in self._kept.items() if self._is_foreign(head)}

    def _is_foreign(self, head: KeptHead) -> bool:
        if not head.epochs or not self._known.isdisjoint(head.epochs):
            return False
        self._known = frozenset(epoch for _, epoch in epochs.noted(self._master.query))
        return self._known.isdisjoint(head.epochs)


def said_of(epoch: str, seq: int, published_at: str) -> str:
    """A head in words, for people: whose it is can be told by when that master's log began."""
    return f"epoch {epoch} (begun {rfc3339(int(epoch[:12], 16))}) at {seq}, published {published_at}"
