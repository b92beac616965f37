"""One stream's way from messages to committed rows: live batches, gaps, catch-up, the same code for all.

Owned by the writer thread. A follower holds nothing that a crash could lose: position and rows are in
the replica, fetched segments in the spool; unfinished change sets and parked batches are asked for again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from storelink.contract.errors import ContractViolation
from storelink.contract.messages import Live, Message, decode_head, decode_live
from storelink.contract.streams import Stream, head_topic, live_topic
from storelink.host.logs import get_logger
from storelink.transport.port import Link
from storenode.core.phases import Phase
from storenode.core.rate_limit import Pace
from storenode.core.refusals import Refusals, span_of
from storenode.core.states import state_of
from storenode.core.verdicts import (
    AHEAD,
    Advance,
    AheadOfHq,
    CatchUp,
    Fork,
    Gap,
    Parked,
    Pending,
    Position,
    Repeat,
    Stale,
    UpToDate,
    judge,
    plan,
)
from storenode.follow.fetch import Fetch
from storenode.follow.spool import Batch, SegmentRefused, Spool, unspooled
from storenode.replica.provenance import CATCH_UP, LIVE, Commit
from storenode.replica.writer import Replica

log = get_logger()

HEAD_TIMEOUT_MS = 10_000


class Follower:
    """Follows one stream over a link that is up or down."""

    def __init__(
        self,
        stream: Stream,
        root: str,
        replica: Replica,
        spool: Spool,
        link: Link,
        counters: Counter[str],
        pace: Pace,
        heard: Callable[[int, bool], None],
    ) -> None:
        self.stream = stream
        self.phase = Phase.DOWN
        self._root = root
        self._replica = replica
        self._spool = spool
        self._link = link
        self._counters = counters
        stored = replica.state(stream)
        self.position = Position(stored.epoch, stored.position, stored.digest)
        self.head_seq = stored.position
        self.as_of_ms: int | None = None
        self._pending = Pending()
        self._parked = Parked()
        self._ahead_of_hq = AheadOfHq()
        self._missing_to = 0
        self._doubt = stored.rebuild_due
        self.refusals = Refusals(stored.refusal)
        self.life = 0
        self._catch_up: CatchUp | None = None
        self._pace = pace
        self._heard = heard
        self._fetch = Fetch(stream, root, spool, link, pace, self.refusals)
        self._head_deadline_ms = 0

    @property
    def state(self) -> str:
        """The stream's public state, as the `freshness` view names it."""
        return state_of(self.phase, self.position.epoch, self._doubt)

    @property
    def standing(self) -> str:
        """What HQ is told anew when it changes."""
        return f"{self.state}/{self.life}/{self._replica.quarantined(self.stream)}/{self.refusals.reported}"

    def connected(self, now_ms: int) -> None:
        """A new connection: ask for what is live, then for the head."""
        self._forget_connection()
        self._link.subscribe([live_topic(self._root, self.stream)])
        self._ask_head(now_ms)

    def disconnected(self) -> None:
        self._forget_connection()
        self.phase = Phase.DOWN

    def halt(self) -> None:
        """HQ's columns are not those declared here: ask for nothing until a batch comes that can be read."""
        if self.phase not in (Phase.DOWN, Phase.HALTED):
            self._link.unsubscribe([head_topic(self._root, self.stream)])
            self._fetch.abandon()
            self._forget_connection()
            self.phase = Phase.HALTED

    def rebuild(self, reason: str, now_ms: int) -> None:
        """Fetch the stream anew; the rows there are serve until all of it is here. A crash goes on with it."""
        if self.position.epoch is None or self._doubt == reason:
            return
        if reason == AHEAD:
            self.head_seq = 0
        log.warning("rebuild.started", stream=str(self.stream), position=self.position.seq, reason=reason)
        self._replica.set_rebuild_due(self.stream, reason)
        self._doubt = reason
        if self.phase is not Phase.DOWN:
            self._lose_thread(0 if reason == AHEAD else self.position.seq, now_ms)

    def step(self, now_ms: int) -> None:
        """Ask for more when the pace allows, and again for what did not come in time."""
        if self.phase is Phase.FETCHING:
            self._fetch.fill_window(now_ms)
            if not self._fetch.is_late(now_ms):
                return
            if self._fetch.missing:
                self._counters["fetch_timeouts"] += 1
                log.warning("segments.missed", stream=str(self.stream), missing=self._fetch.missing)
        elif self.phase is not Phase.AWAITING_HEAD or now_ms < self._head_deadline_ms:
            return
        self._reread_head(now_ms)

    def on_live(self, message: Message, now_ms: int, wall_ms: int) -> None:
        """Take one live message in. Raises ContractViolation for a malformed one, which changes nothing."""
        live = decode_live(self._root, message, self._replica.contexts)
        self.refusals.accept("live")
        if self.phase is Phase.HALTED:
            self._ask_head(now_ms)
        self._heard(live.at_ms, self.phase is Phase.LIVE and not message.retain)
        if live.epoch == self.position.epoch or self.position.epoch is None:
            self.head_seq = max(self.head_seq, live.last)
        if self._ahead_of_hq.is_proven_by(live, self.position):
            self.rebuild(AHEAD, now_ms)
        if self.phase is Phase.LIVE:
            self._take(live, len(message.payload), now_ms, wall_ms)
        elif self.phase is not Phase.DOWN:
            self._parked.add(live, len(message.payload))

    def on_head(self, message: Message, now_ms: int, wall_ms: int) -> None:
        """Read a head and start, adjust or end a catch-up."""
        if self.phase not in (Phase.AWAITING_HEAD, Phase.FETCHING):
            return
        self._pace.charge(len(message.payload))
        head = decode_head(self._root, message, self._replica.contexts)
        self.refusals.accept("head")
        self._heard(head.at_ms, False)
        decision = plan(self.position, head, missing_to=self._missing_to, rebuild_due=self._doubt)
        if isinstance(decision, Stale):
            return
        self.head_seq = max(head.seq, self.head_seq if head.epoch == self.position.epoch else 0)
        if isinstance(decision, UpToDate):
            self._arrive(now_ms, wall_ms)
            return
        if decision.replace and self.position.epoch is not None and self._doubt is None:
            self._doubt = decision.replace
            log.warning("rebuild.started", stream=str(self.stream), position=self.position.seq, reason=decision.replace)
        self._start(decision, now_ms)
        self._finish_if_complete(now_ms, wall_ms)

    def on_segment(self, message: Message, now_ms: int, wall_ms: int) -> None:
        """Put a fetched segment into the spool and ask for the next."""
        if self._fetch.take(message.topic, message.payload, now_ms, wall_ms):
            self._finish_if_complete(now_ms, wall_ms)
        else:
            # Unasked, or replaced meanwhile: the fetch times out unless a newer head comes first.
            self._counters["segments_dropped"] += 1

    def flush(self, wall_ms: int) -> None:
        """Commit the pending batches up to the last one that ends a change set."""
        whole = self._pending.take_complete()
        if not whole:
            return
        last = whole[-1]
        rows = self._commit(
            [Commit(LIVE, b.first, b.last, b.epoch, b.digest, b.at_ms, wall_ms) for b in whole],
            ((b.rows, b.deleted, b.held) for b in whole),
            replace=None,
            wall_ms=wall_ms,
        )
        log.info("batch.applied", stream=str(self.stream), first_seq=whole[0].first, last_seq=last.last, rows=rows)

    def _take(self, live: Live, size_bytes: int, now_ms: int, wall_ms: int) -> None:
        verdict = judge(self._pending.end(self.position), live)
        match verdict:
            case Advance():
                self._pending.add(live, size_bytes)
                self._counters["events"] += live.last - live.first + 1
                if self._pending.is_full:
                    self.flush(wall_ms)
                    if self._pending:
                        self._lose_thread(live.last, now_ms)
            case Repeat(current):
                if current:
                    self.as_of_ms = wall_ms
                else:
                    self._counters["repeats"] += 1
            case Gap(missing_to):
                log.warning("gap.found", stream=str(self.stream), position=self.position.seq, missing_to=missing_to)
                self._counters["gaps"] += 1
                self.flush(wall_ms)
                self._lose_thread(missing_to, now_ms)
                self._parked.add(live, size_bytes)
            case Fork(reason):
                log.warning("fork.found", stream=str(self.stream), position=self.position.seq, reason=reason)
                self._counters["forks"] += 1
                self._doubt = reason
                self._lose_thread(0 if live.epoch != self.position.epoch else live.last, now_ms)
                self._parked.add(live, size_bytes)

    def _lose_thread(self, missing_to: int, now_ms: int) -> None:
        self._pending.clear()
        self._missing_to = missing_to
        if self.phase is Phase.FETCHING:
            self._reread_head(now_ms)
        else:
            self._ask_head(now_ms)

    def _ask_head(self, now_ms: int) -> None:
        self.phase = Phase.AWAITING_HEAD
        self._head_deadline_ms = now_ms + HEAD_TIMEOUT_MS
        self._link.subscribe([head_topic(self._root, self.stream)])

    def _reread_head(self, now_ms: int) -> None:
        """Brokers give a retained message once a subscription: end it, begin it anew."""
        self._link.unsubscribe([head_topic(self._root, self.stream)])
        self._fetch.abandon()
        self._catch_up = None
        self._ask_head(now_ms)

    def _start(self, decision: CatchUp, now_ms: int) -> None:
        self.phase = Phase.FETCHING
        self._catch_up = decision
        self._fetch.want(decision.needed, now_ms)

    def _finish_if_complete(self, now_ms: int, wall_ms: int) -> None:
        if self._catch_up is None or self._fetch.missing:
            return
        done, self._catch_up = self._catch_up, None
        head = done.head
        try:
            batches = unspooled(done, self._spool, self._root, self.stream)
            origin = Commit(CATCH_UP, 1, head.seq, head.epoch, head.digest, head.at_ms, wall_ms)
            rows = self._commit([origin], batches, replace=done.replace, wall_ms=wall_ms)
        except ContractViolation as violation:
            self._counters[f"rejected_{violation.reason}"] += 1
            log.warning("segment.rejected", stream=str(self.stream), reason=violation.reason, detail=violation.detail)
            keep: set[str] = set()
            if isinstance(violation, SegmentRefused):
                self.refusals.refuse("segment", span_of(violation.ref), violation, wall_ms)
                keep = {ref.sha256 for ref in done.needed}  # fetched anew they would be the same bytes
            self._spool.sweep(keep)
            self.phase = Phase.FETCHING  # the deadline asks for the head again
            return
        self._doubt = None
        self.life += done.replace is not None
        self._counters["catch_ups"] += 1
        log.info("catch_up.applied", stream=str(self.stream), position=head.seq, rows=rows, segments=len(done.needed))
        self._spool.sweep(())
        self._arrive(now_ms, wall_ms)

    def _commit(self, commits: Sequence[Commit], rows: Iterable[Batch], *, replace: str | None, wall_ms: int) -> int:
        end = commits[-1]
        self.head_seq = max(self.head_seq, end.last_seq) if end.epoch == self.position.epoch else end.last_seq
        if self.head_seq == end.last_seq:
            self.as_of_ms = wall_ms
        written = self._replica.apply(
            self.stream,
            epoch=end.epoch,
            position=end.last_seq,
            digest=end.digest,
            head_seq=self.head_seq,
            batches=rows,
            replace=replace is not None,
            reason=replace or "",
            wall_ms=wall_ms,
            commits=commits,
        )
        self.position = Position(end.epoch, end.last_seq, end.digest)
        self._counters["rows"] += written
        return written

    def _arrive(self, now_ms: int, wall_ms: int) -> None:
        """The head holds nothing more: go live with what came meanwhile."""
        self._missing_to = 0
        self.refusals.clear()
        self.phase = Phase.LIVE
        self.as_of_ms = wall_ms
        self._link.unsubscribe([head_topic(self._root, self.stream)])
        for live, size_bytes in self._parked.take_all():
            if self.phase is Phase.LIVE:
                self._take(live, size_bytes, now_ms, wall_ms)
            else:
                self._parked.add(live, size_bytes)

    def _forget_connection(self) -> None:
        self._pending.clear()
        self._parked.take_all()
        self._fetch.forget()
        self._catch_up = None
        self._missing_to = 0
