"""The router: hands each link event to the follower it belongs to, and keeps the public state written down.

Owned by the writer thread. It has no clock and no thread: `mono_ms` is monotonic, `wall_ms` since 1970.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Self

from storelink.contract.errors import ContractViolation
from storelink.contract.messages import Message
from storelink.contract.status import MessageRefusal
from storelink.contract.streams import SCOPE_ALL, Stream, parse_topic
from storelink.host.logs import get_logger
from storelink.host.process import give_back_memory
from storelink.transport.port import Connected, Disconnected, Link, LinkEvent, Received
from storenode.core.phases import Phase
from storenode.core.rate_limit import Pace
from storenode.follow.follower import Follower
from storenode.follow.spool import Spool
from storenode.replica.contexts import note_problems
from storenode.replica.file import translated
from storenode.replica.writer import Replica

log = get_logger()

NOTE_EVERY_MS = 1_000
"""How often `as_of` is written while nothing else changes."""


class Router:
    """Follows a store's streams over one link; made by `open`."""

    def __init__(
        self, root: str, replica: Replica, followers: Mapping[Stream, Follower], counters: Counter[str]
    ) -> None:
        self._root, self._replica, self.followers, self.counters = root, replica, followers, counters
        self.connected = False
        self._caches_dropped_after = 0
        self._halted: dict[Stream, str] = {}
        self._search_unproven = False
        self._noted: dict[Stream, tuple[str, int, int]] = {}
        self._noted_refusals = {stream: follower.refusals.worst for stream, follower in self.followers.items()}
        self._refusals_due_ms = 0

    @classmethod
    def open(
        cls,
        root: str,
        replica: Replica,
        spools: Callable[[Stream], Spool],
        link: Link,
        streams: Iterable[Stream],
        *,
        max_kbps: int = 0,
        heard: Callable[[int, bool], None] = lambda _at_ms, _live: None,
    ) -> Self:
        """Read where the replica stands in each stream. `heard(at_ms, live)`: HQ made a message then, `live` just now.

        Raises:
            ReplicaUnwritable, ReplicaDamaged: as named, of the replica or of the place of a spool.
        """
        counters: Counter[str] = Counter()
        pace = Pace(max_kbps)  # the line is one, whatever the streams
        followers = {
            stream: Follower(stream, replica.state(stream), root, replica, spools(stream), link, counters, pace, heard)
            for stream in streams
        }
        return cls(root, replica, followers, counters)

    def close(self) -> None:
        """The link is closed for good."""
        self.connected = False

    @property
    def is_settled(self) -> bool:
        """Whether every stream is live and the search index has every row."""
        live = all(follower.phase is Phase.LIVE for follower in self.followers.values())
        return live and self._replica.is_search_ready()

    @property
    def states(self) -> dict[str, str]:
        """The state of each stream, but for those of a narrower scope that HQ never announced."""
        return {
            str(stream): follower.state
            for stream, follower in self.followers.items()
            if stream.scope == SCOPE_ALL or follower.position.epoch is not None
        }

    def handle(self, event: LinkEvent, mono_ms: int, wall_ms: int) -> None:
        """Take one link event."""
        match event:
            case Connected():
                self.connected = True
                for follower in self.followers.values():
                    follower.connected(mono_ms)
            case Disconnected(reason):
                self.connected = False
                log.warning("line.lost", reason=reason)
                for follower in self.followers.values():
                    follower.disconnected()
            case Received(message):
                self._receive(message, mono_ms, wall_ms)
            case _:
                pass

    def flush(self, wall_ms: int) -> None:
        """Commit what is complete; called when no more events wait."""
        for follower in self.followers.values():
            follower.flush(wall_ms)

    def prove_search(self) -> None:
        """Have the search index proven in the next pause in which it has every row."""
        self._search_unproven = True

    def use_pause(self) -> bool:
        """Bring the search index on while no event waits, and give back memory; True while there is more to index."""
        if not self._replica.is_search_ready():
            rows = self._replica.feed_search()
            if not self._replica.is_search_ready():
                return True
            log.info("search.fed", rows=rows)
        if self._search_unproven:
            self._search_unproven = False
            if not self._replica.check_search():
                log.error("search.drifted")
                return True
        if self._caches_dropped_after != self.counters["catch_ups"]:
            self._caches_dropped_after = self.counters["catch_ups"]
            self._replica.drop_caches()
            give_back_memory()
        return False

    def step(self, mono_ms: int) -> None:
        """Do what time asks for, and write down what readers may see."""
        for stream, follower in self.followers.items():
            follower.step(mono_ms)
            as_of_ms = follower.as_of_ms or 0
            state, noted_head, noted_as_of = self._noted.get(stream, ("", 0, -NOTE_EVERY_MS))
            changed = (state, noted_head) != (follower.state, follower.head_seq)
            changed |= self._note_refusal(stream, follower.refusals.worst, mono_ms)
            if changed or as_of_ms - noted_as_of >= NOTE_EVERY_MS:
                self._replica.note(
                    stream,
                    state=follower.state,
                    head_seq=follower.head_seq,
                    as_of_ms=follower.as_of_ms,
                    refusal=self._noted_refusals[stream],
                )
                self._noted[stream] = (follower.state, follower.head_seq, as_of_ms)
            if stream in self._halted and follower.phase in (Phase.FETCHING, Phase.LIVE):
                del self._halted[stream]
                self._note_halted(stream.context.name)
                log.info("stream.resumed", stream=str(stream))

    def _note_refusal(self, stream: Stream, refusal: MessageRefusal | None, mono_ms: int) -> bool:
        """Take over what is refused, a mere count at most once a second; True if there is something to write down."""
        noted = self._noted_refusals[stream]
        if refusal == noted:
            return False
        if refusal is None:
            log.info("refusal.ended", stream=str(stream))
        elif noted is None or (refusal.message, refusal.range) != (noted.message, noted.range):
            log.error(
                "message.refused",
                stream=str(stream),
                message=refusal.message,
                range=refusal.range,
                reason=refusal.reason,
                detail=refusal.detail,
            )
        elif mono_ms < self._refusals_due_ms:
            return False
        self._noted_refusals[stream], self._refusals_due_ms = refusal, mono_ms + NOTE_EVERY_MS
        return True

    def _halt(self, stream: Stream, reason: str) -> None:
        """Stop one stream whose columns at HQ are not those declared here; the others go on."""
        self.followers[stream].halt()
        if self._halted.get(stream) != reason:
            self._halted[stream] = reason
            self._note_halted(stream.context.name)
            log.error("stream.halted", stream=str(stream), reason=reason)

    def _note_halted(self, context: str) -> None:
        found = next((reason for stream, reason in self._halted.items() if stream.context.name == context), None)
        with translated(self._replica.path):
            note_problems(self._replica.connection, {context: found})

    def _receive(self, message: Message, mono_ms: int, wall_ms: int) -> None:
        self.counters["messages"] += 1
        self.counters["bytes"] += len(message.payload)
        follower = None
        try:
            kind, stream, _ = parse_topic(self._root, message.topic, self._replica.contexts)
            follower = self.followers.get(stream)
            if follower is None:
                raise ContractViolation("wrong_stream", f"{stream} is not followed here")
            if not message.payload:
                return  # a cleared retained message
            match kind:
                case "live":
                    follower.on_live(message, mono_ms, wall_ms)
                case "head":
                    follower.on_head(message, mono_ms, wall_ms)
                case _:
                    follower.on_segment(message, mono_ms, wall_ms)
        except ContractViolation as violation:
            self.counters[f"rejected_{violation.reason}"] += 1
            if follower is not None:
                follower.refusals.refuse(kind, None, violation, wall_ms)
            if violation.reason == "columns":
                self._halt(stream, violation.detail)
                return
            log.warning(
                "message.rejected", topic=message.topic[:120], reason=violation.reason, detail=violation.detail[:200]
            )
