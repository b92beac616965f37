"""The plan of an import: what a feed would change, how much of it, and the guard that stops it, if one does.

A plan is made in one snapshot of the master, and holds the feed and the rows that it was compared with: hundreds of
bytes a row, until it is dropped. Nothing is written here; `hq.catalog` applies a plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hq.core.changes import Change
from hq.core.feed_diff import Diff, diff
from hq.core.guard import Deletions, Refused, dropped_choice, judge, only_choice, sentence
from hq.core.part import Part
from hq.core.samples import Samples, samples
from hq.feeds.files import Feed
from hq.master.store import Master
from storelink.contract.contexts import Key, Row
from storelink.contract.streams import Stream

PLAN_AGE_MS_MAX = 60_000
"""An older plan is made anew before it is applied: prices begin and end meanwhile."""


@dataclass(frozen=True, slots=True)
class FeedImport:
    """
    A feed, and what was said about it.

    Attributes:
        file: the feed's name, for messages.
        full: what the feed lacks of `part` is deleted.
        forced: the default guards are lifted; `max_deletes` and `max_changes` are not.
    """

    stream: Stream
    file: str
    feed: Feed = field(repr=False)
    part: Part
    full: bool
    forced: bool
    max_deletes: int | None
    max_changes: int | None


@dataclass(frozen=True, slots=True)
class Impact:
    """
    How much an import changes.

    Attributes:
        rows: rows of the feed.
        events: entities that change, each of which becomes one event: `new`, `changed` and `deleted` together.
        unchanged: entities that the feed names and that are so already.
        expired: rows that name a price which is over already.
        held: rows of the master that the feed speaks for, before the import.
    """

    rows: int
    events: int
    new: int
    changed: int
    deleted: int
    unchanged: int
    expired: int
    held: int


@dataclass(frozen=True, slots=True, eq=False)
class ImportPlan:
    """
    What a feed would change, as of one snapshot.

    Attributes:
        request: the feed, and what was said about it.
        impact: how much would change.
        refused: the guard that stops the import, with a sentence and a hint; None: the plan may be applied.
        changes: the changes themselves, deletions last.
        at_ms: when the plan was made; milliseconds since 1970.
    """

    request: FeedImport
    impact: Impact
    refused: Refused | None
    changes: list[Change] = field(repr=False)
    at_ms: int
    live: Mapping[Key, Row] = field(repr=False)
    position: tuple[str, int, str] | None

    def samples(self) -> Samples:
        """The first 20 changes of each kind, with the values before and after."""
        return samples(self.request.stream.context, self.changes, self.live)

    def still_holds(self, master: Master, at_ms: int) -> bool:
        """Whether the master is where the plan was made, and the plan is fresh; within a transaction."""
        return 0 <= at_ms - self.at_ms <= PLAN_AGE_MS_MAX and self.position == _position(master, self.request.stream)


def make_plan(master: Master, request: FeedImport, at_ms: int) -> ImportPlan:
    """
    Compare a feed with the master; within a transaction or snapshot of it.

    Raises:
        BadFeed: the first bad row; nothing of the feed may be used.
        ContextDiffers: the context is declared here otherwise than in the master.
    """
    stream = request.stream
    live = master.live_rows(stream)
    found = diff(stream.context, request.file, request.feed, live, at_ms // 1000, full=request.full, part=request.part)
    impact = Impact(
        rows=found.rows,
        events=len(found.changes),
        new=found.new,
        changed=found.changed,
        deleted=found.deleted,
        unchanged=found.unchanged,
        expired=found.expired,
        held=len(request.part.of(live.keys())),
    )
    refused = _refused(request, found, live, impact.held)
    return ImportPlan(request, impact, refused, found.changes, at_ms, live, _position(master, stream))


def _position(master: Master, stream: Stream) -> tuple[str, int, str] | None:
    """What identifies a stream's rows; a context that gains columns keeps its seq and gets another epoch and digest."""
    row = master.stream(stream)
    return None if row is None else (row.epoch, row.head_seq, row.digest)


def _refused(request: FeedImport, found: Diff, live: Mapping[Key, Row], held: int) -> Refused | None:
    """The guard that stops the feed: a bound that was set for this import, or else a default guard."""
    name = request.file
    if request.max_deletes is not None and found.deleted > request.max_deletes:
        problem = f"{name} would delete {found.deleted} entities; --max-deletes is {request.max_deletes}"
        return Refused("max_deletes", problem, "a higher --max-deletes if it is meant")
    if request.max_changes is not None and len(found.changes) > request.max_changes:
        problem = f"{name} would make {len(found.changes)} events; --max-changes is {request.max_changes}"
        return Refused("max_changes", problem, "a higher --max-changes if it is meant")
    if request.forced or not found.deleted:
        return None
    context = request.stream.context
    deletions = Deletions(held, found.named, found.deleted, dropped_choice(context, live, found.changes))
    guard = judge(deletions)
    if guard is None:
        return None
    hints = ["--force if it is meant"]
    if not request.part and len(context.keys) > 1:
        part = only_choice(context, live, found.changes) or "COLUMN=VALUE"
        hints.append(f"--where {part} if the feed speaks for these rows only")
    rows_of = f"{request.stream} with {request.part}" if request.part else str(request.stream)
    return Refused(guard, f"{name} {sentence(guard, deletions, rows_of)}", "; ".join(hints))
