"""Whose heads the broker keeps: HQ publishes nothing while one is *foreign*, of an epoch that its master never had.

Such a head is another master's, or of a future that this one has lost. To publish over it would take away what every
store has. Owned by the publisher's thread; it has no clock.

HQ knows what the broker sent over this connection: HQ subscribes to all heads, and then publishes a message to itself,
the *fence*. A broker delivers in order, so once the fence has come back, so have all heads that the broker keeps. Where
two HQs publish, both receive each other's heads in the same order: the one whose head came first falls silent, and the
other goes on.

What the subscription costs, measured with mosquitto and 5,000 streams of 20 rows: 1.7 MB and 0.3 s until the fence is
back, 0.25 s to read the heads, and every head that HQ publishes comes back to it. A judgement looks only at the heads
that were foreign when they came. A broker
whose queue for a client is shorter than that drops the rest and does not say so: with mosquitto's default of 1,000
messages, 1,020 of 5,000 heads come and the first fence does not; the next fence does, and HQ judges without the other
heads. `deploy/mosquitto.conf` sets 20,000. HQ asks for the head of each stream of its own by that head's topic, too.

What HQ may do after a connect:

    WAIT        until the fence is back, and each own stream's audit is over
    PUBLISH     no head is foreign
    SILENT      some are: HQ follows their live batches, and waits until they are gone and nothing more was heard of
                their HQ for a while (`quiet_ms`)
    LOOK_AGAIN  they are gone, or the operator takes them over: HQ's streams begin epochs later than theirs, and the
                audit begins anew
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum

import msgspec

from hq.master.store import Master
from hq.master.streams import EPOCH_END
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
"""How long the broker may take to show what it keeps before HQ logs that it waits for that."""

REMIND_EVERY_MS = 600_000
"""How often HQ logs again why it publishes nothing."""

RECONNECT_MS = int(BACKOFF_S_MAX * 1000) + 25_000
"""After a connect, how long another HQ may take to be connected again as well; systemd may have to start it first."""

HINT = "hq run --take-over, if every store is to have this master's catalog instead"


class Permission(Enum):
    """What HQ may do now."""

    WAIT = "the broker has not shown yet what it keeps"
    SILENT = "the broker keeps another master's heads, or that master was heard of a short time ago"
    LOOK_AGAIN = "those heads are gone, or taken over; HQ asks once more what the broker keeps"
    PUBLISH = "every head that the broker keeps is this master's"


@dataclass(frozen=True, slots=True)
class KeptHead:
    """A head or live batch as far as it can be read; `epochs` are those that body and event id name, if any."""

    epochs: tuple[str, ...]
    seq: int
    at_ms: int


class _Named(msgspec.Struct):
    epoch: str = ""
    seq: int = 0
    at_ms: int = 0


_decode = msgspec.json.Decoder(_Named).decode


def read_head(message: Message) -> KeptHead:
    """
    Read whose a head or live batch is, also one of a context that is not declared here, or of another version.

    A damaged one may name its epoch in its event id or in its body alone; one that names none is nobody's.
    """
    try:
        body = _decode(unpack(message.payload, message.content_type))
    except (ContractViolation, msgspec.MsgspecError, UnicodeError, RecursionError):
        body = _Named()
    named = (body.epoch, message.attributes.get("id", "").partition("/")[0])
    return KeptHead(tuple(e for e in named if is_epoch(e) and e < EPOCH_END), body.seq, max(body.at_ms, 0))


class BrokerHeads:
    """What the broker keeps as heads under a root, and whether this master may publish there.

    Attributes:
        foreign: by stream, the heads because of which HQ is silent; once they are gone, those last seen.
        contested: a foreign head was there at the last judgement, or has come since.
    """

    def __init__(
        self, root: str, master: Master, link: Link, quiet_ms: int, foreign: Mapping[str, KeptHead], *, take_over: bool
    ) -> None:
        """
        Args:
            quiet_ms: HQ ends its silence once nothing of another HQ was heard for so long; two heartbeats.
            foreign: the heads because of which this HQ was silent before it was started anew.
            take_over: publish over whatever heads are there at the first look.
        """
        self.foreign = {} if take_over else dict(foreign)
        self.contested = False
        self._root, self._master, self._link, self._quiet_ms = root, master, link, quiet_ms
        self._take_over = take_over
        self._to_pass = _newest(foreign)  # by stream, what an epoch of ours must be later than
        self._fence = f"{root}/head/-/{secrets.token_hex(4)}"
        self._fences = self._fence_first = 0
        self._kept: dict[str, KeptHead] = {}
        self._strange: set[str] = set()  # of these, the heads were foreign when they came
        self._ours: set[str] = set()  # epochs of heads that the master was found to have had
        self._shown = self._judged = False
        self._next_fence_ms = self._quiet_until_ms = self._next_reminder_ms = self._next_unseen_ms = 0

    @property
    def silent(self) -> bool:
        return bool(self.foreign)

    def connect(self, mono_ms: int) -> None:
        """A new connection: what the broker keeps is not known; call `look` next."""
        self._kept.clear()
        self._strange.clear()
        self._quiet_until_ms = mono_ms + self._quiet_ms + RECONNECT_MS

    def look(self, mono_ms: int) -> None:
        """Ask the broker for what it keeps."""
        self._shown = self._judged = False
        self._fence_first = self._fences + 1
        self._next_unseen_ms = mono_ms + UNSEEN_MS
        self._link.subscribe([f"{self._root}/head/+/+"])
        if self.silent:
            self._link.subscribe([f"{self._root}/live/+/+"])
        self._send_fence(mono_ms)

    def take(self, message: Message, mono_ms: int) -> bool:
        """Take a message in. True if it concerns nobody else."""
        kind, _, name = message.topic.removeprefix(f"{self._root}/").partition("/")
        if message.topic == self._fence:
            self._shown = self._shown or int(message.payload or b"0") >= self._fence_first
        elif kind == "live" and self.silent and self._is_foreign(name, read_head(message)):
            self._quiet_until_ms = mono_ms + self._quiet_ms
        if kind != "head" or name.startswith("-/"):
            return kind != "segment"
        if message.payload:
            head = self._kept[name] = read_head(message)
            if self._is_foreign(name, head):
                self._strange.add(name)
                self.contested = True
            else:
                self._strange.discard(name)
        else:
            self._kept.pop(name, None)
            self._strange.discard(name)
        return False

    def is_replaced(self, stream: Stream, epoch: str) -> bool:
        """Whether the broker keeps no head of a stream any more, or one of another epoch."""
        head = self._kept.get(str(stream))
        return head is None or epoch not in head.epochs

    def is_foreign(self, stream: Stream) -> bool:
        """Whether the broker keeps another master's head of a stream."""
        head = self._kept.get(str(stream))
        return head is not None and self._is_foreign(str(stream), head)

    def is_ours(self, stream: Stream, epoch: str) -> bool:
        """Whether the master ever had this epoch of a stream."""
        return not self._is_foreign(str(stream), KeptHead((epoch,), 0, 0))

    def judge(self, mono_ms: int, wall_ms: int, ours: Collection[str], *, audited: bool) -> Permission:
        """
        Say what HQ may do; see the table above.

        Args:
            ours: the streams of this master.
            audited: HQ asked for the head of each of them by its own topic, too, and it has come, or is late.
        """
        if not self._shown:
            self._ask_again(mono_ms)
            return Permission.WAIT
        if not (self._judged or audited):
            return Permission.WAIT
        is_first, self._judged = not self._judged, True
        strange = [(name, self._kept[name]) for name in sorted(self._strange)]
        foreign = {name: head for name, head in strange if self._is_foreign(name, head)}
        some_are_ours = (is_first or bool(foreign)) and len(foreign) < sum(bool(h.epochs) for h in self._kept.values())
        if is_first:
            if self._take_over and (foreign or self._to_pass):
                return self._go_on_later(foreign, wall_ms)
            self._take_over = False
            if some_are_ours and not foreign:
                self._quiet_until_ms = mono_ms  # what the broker keeps is ours: HQ waits for nobody else
        if foreign and some_are_ours and foreign.keys().isdisjoint(ours):
            # Beside heads that are ours: streams that this master has forgotten, because it is an older copy.
            log.warning("streams.forgotten", streams=sorted(foreign))
            self._master.begin_epochs_after(_newest(foreign), wall_ms)
            foreign = {}
        self.contested = bool(foreign)
        if foreign:
            self._stay_silent(foreign, mono_ms)
            return Permission.SILENT
        if not self.silent:
            return Permission.PUBLISH
        return Permission.SILENT if mono_ms < self._quiet_until_ms else self._go_on_later({}, wall_ms)

    def _ask_again(self, mono_ms: int) -> None:
        if mono_ms >= self._next_fence_ms:
            self._send_fence(mono_ms)
        if mono_ms >= self._next_unseen_ms:
            self._next_unseen_ms = mono_ms + REMIND_EVERY_MS
            hint = f"may this user read {self._root}/head/+/+ and write {self._root}/head/-/+ at the broker?"
            log.warning("heads.unseen", root=self._root, hint=hint)

    def _send_fence(self, mono_ms: int) -> None:
        self._fences += 1
        self._next_fence_ms = mono_ms + FENCE_EVERY_MS
        self._link.publish(Message(self._fence, str(self._fences).encode()))

    def _stay_silent(self, foreign: dict[str, KeptHead], mono_ms: int) -> None:
        if not self.silent:
            self._next_reminder_ms = mono_ms
            self._link.subscribe([f"{self._root}/live/+/+"])
        self.foreign = foreign
        self._to_pass |= _newest(foreign)
        self._quiet_until_ms = mono_ms + self._quiet_ms
        if mono_ms >= self._next_reminder_ms:
            self._next_reminder_ms = mono_ms + REMIND_EVERY_MS
            heads = {name: said_of(max(head.epochs), head.seq, rfc3339(head.at_ms)) for name, head in foreign.items()}
            log.error("heads.foreign", root=self._root, heads=heads, hint=HINT)

    def _go_on_later(self, foreign: Mapping[str, KeptHead], wall_ms: int) -> Permission:
        """Begin epochs later than the foreign ones: stores that followed those must find what follows."""
        if self._take_over:
            self._take_over = False
            log.warning("heads.taken_over", root=self._root, streams=sorted(foreign))
        else:
            log.warning("heads.gone", root=self._root, streams=sorted(self.foreign))
        self._to_pass |= _newest(foreign)
        self._master.begin_epochs_after(self._to_pass, wall_ms)
        self._to_pass, self.foreign, self.contested = {}, {}, False
        self._link.unsubscribe([f"{self._root}/live/+/+"])
        return Permission.LOOK_AGAIN

    def _is_foreign(self, name: str, head: KeptHead) -> bool:
        if not head.epochs or not self._ours.isdisjoint(head.epochs):
            return False
        found = self._master.epochs_among(name, head.epochs)
        self._ours |= found
        return not found


def _newest(heads: Mapping[str, KeptHead]) -> dict[str, str]:
    """By stream, the newest epoch that its head names."""
    return {name: max(head.epochs) for name, head in heads.items()}


def said_of(epoch: str, seq: int, published_at: str) -> str:
    """A head in words, for people: they know a master by when its log began."""
    return f"epoch {epoch} (begun {rfc3339(int(epoch[:12], 16))}) at {seq}, published {published_at}"
