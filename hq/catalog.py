"""The public library of HQ: one master catalog, its changes and what is known of it.

Guide: docs/library-hq.md. The commands of `hq` are thin over this module.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypedDict, Unpack, get_args

from hq import lookup
from hq.collect import inbox, overrides
from hq.collect.fleet import StoreStatus, stores_of
from hq.collect.inbox import InboxEntry, inbox_path
from hq.collect.overrides import StoreOverride
from hq.config import contexts_in
from hq.core import edits
from hq.core.changes import Change
from hq.core.edits import FieldValue
from hq.core.feed_export import Format, lines
from hq.core.part import part_of
from hq.errors import BadField, GuardTripped, NotPublished
from hq.feeds.files import check_mapping, read_feed
from hq.feeds.plan import FeedImport, ImportPlan, make_plan
from hq.lookup import Found, Prices
from hq.master import audit, lock
from hq.master import backup as copies
from hq.master.context_migration import left_out
from hq.master.records import Committed, StreamRow
from hq.master.store import Master
from hq.publish.publication import read_position
from hq.status import LoggedEvent, Status, Verification, status_of, verification_of
from storelink.contract.contexts import BUILT_IN, PRICE, PRODUCT, Context, Contexts, Key, Row
from storelink.contract.errors import ContractViolation
from storelink.contract.streams import SCOPE_ALL, Stream, checked_name
from storelink.contract.times import BadTime, epoch_seconds

POLL_S = 0.02
"""How often `await_published` looks."""

ENTRIES_MAX = 2**62
"""No bound on the entries that are read."""

SEARCH_LIMIT = 20
SEARCH_LIMIT_MAX = 1_000
"""Products that one search gives."""

KINDS_OF_PRICE = PRICE.keys[1].choices

Clock = Callable[[], int]
"""Milliseconds since 1970."""

Progress = Callable[[str], None]
"""Takes a few words, such as "reading feed.csv"."""


def wall_ms() -> int:
    """Milliseconds since 1970, by this machine's clock."""
    return time.time_ns() // 1_000_000


def _silent(_: str) -> None:
    pass


class ImportOptions(TypedDict, total=False):
    """
    What can be said about a feed, as keywords of `Catalog.plan_import` and `Catalog.import_feed`.

    Attributes:
        scope: "all" if nothing is said, a zone or one store.
        full: the feed is all of the stream, or all that `where` names: what it lacks is deleted.
        where: key column -> the value, or the values, that the feed speaks for; other rows in it are bad rows.
        mapping: column of the feed -> field of the context; other columns are fields by name.
        force: lift the guards on deletions, which docs/operating/daily.md lists.
        allow_empty: lift them for a feed without rows.
        max_deletes, max_changes: guards of one's own, which `force` does not lift.
        progress: is called with what comes next, for a person who waits.
    """

    scope: str
    full: bool
    where: Mapping[str, str | Sequence[str]]
    mapping: Mapping[str, str]
    force: bool
    allow_empty: bool
    max_deletes: int | None
    max_changes: int | None
    progress: Progress


@dataclass(frozen=True, slots=True)
class Imported:
    """
    What an import did.

    Attributes:
        plan: what was applied; made anew if the master had changed since the plan that was given.
        committed: the events that it became.
    """

    plan: ImportPlan
    committed: Committed


class Catalog:
    """
    The master catalog of a chain: `with Catalog.open("hq.db") as catalog:`.

    One connection, kept open and used by the thread that opened it and no other; other threads and processes open their
    own. Every change is one transaction: after a crash it is there completely, or not at all. `hq run`, if it is at
    work, is woken after each commit and publishes it.

    Attributes:
        is_new: whether `Catalog.create` made the master, and did not find it.
    """

    def __init__(self, master: Master, clock: Clock = wall_ms, *, is_new: bool = False) -> None:
        """Take over an open master; `Catalog.open` and `Catalog.create` make a catalog."""
        self.is_new = is_new
        self._master, self._clock = master, clock
        self._change_set_is_open = False

    @classmethod
    def create(cls, path: Path | str, contexts: Contexts | Path | str = BUILT_IN, clock: Clock = wall_ms) -> Self:
        """
        Make the master at `path`, with an empty stream for every context, and open it.

        A master that is there already is opened, and takes in what was declared since.

        Raises:
            MasterDamaged: the file is there, and is no master.
            MasterUnwritable: it cannot be made.
        """
        registry = contexts if isinstance(contexts, Contexts) else contexts_in(Path(contexts))
        is_new = Master.create(path, registry, clock())
        master = Master.open(path, registry)
        with master.writing():
            pass  # takes in the contexts that were declared, or gained columns, since
        return cls(master, clock, is_new=is_new)

    @classmethod
    def open(cls, path: Path | str, contexts: Contexts | Path | str = BUILT_IN, clock: Clock = wall_ms) -> Self:
        """
        Open the master at `path`.

        Args:
            contexts: the TOML file in which the chain declares contexts of its own (docs/contexts.md), or the contexts
                themselves; without it, those that are built in.
            clock: says when changes are made; for tests.

        Raises:
            MasterMissing: there is no file.
            MasterDamaged: it is no master, or damaged.
            MasterBusy, MasterUnwritable: SQLite cannot open it.
            BadSettings: the file of contexts cannot be read; with every mistake in it.
        """
        registry = contexts if isinstance(contexts, Contexts) else contexts_in(Path(contexts))
        return cls(Master.open(path, registry), clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; nothing can be asked of this object afterwards."""
        self._master.close()

    @property
    def path(self) -> Path:
        """The master's file."""
        return self._master.path

    @property
    def contexts(self) -> Contexts:
        """The contexts that this catalog was opened with, by name."""
        return self._master.contexts

    # Changes

    def publish(self, context: str, /, *, scope: str = SCOPE_ALL, **fields: FieldValue) -> Committed:
        """
        Change one entity: fields that are not named stay, None or an empty text clears a field.

        Args:
            context: such as "product" or "price".
            scope: "all", a zone or one store.
            fields: by the names of the context, the key among them. Amounts are decimal numbers in the major unit,
                as text or Decimal: "1.99". Times are ISO 8601 text or datetime objects.

        Returns:
            What it became; no event if all of it was so already.

        Raises:
            BadField: a field is unknown, missing, cannot be held, or makes the row too large; nothing was changed.
            MasterBusy: another command holds the master for more than a minute.
        """
        with self.change_set() as change_set:
            change_set.publish(context, scope=scope, **fields)
        return change_set.committed[0]

    def delete(self, context: str, /, *, scope: str = SCOPE_ALL, **key: FieldValue) -> Committed:
        """Delete one entity, named by its key fields and nothing else; errors as `publish`."""
        with self.change_set() as change_set:
            change_set.delete(context, scope=scope, **key)
        return change_set.committed[0]

    @contextmanager
    def change_set(self) -> Iterator[ChangeSet]:
        """
        Make several changes in one transaction: `with catalog.change_set() as change_set:`.

        They may be of any contexts and scopes.

        The write lock is held while the block runs, so keep it short. The changes are committed when the block ends; an
        exception that leaves it undoes all of them. The events of one stream become visible at a store together.

        Raises:
            MasterBusy: another command holds the master for more than a minute.
            BadField: no store would accept a row; raised at the end of the block, nothing was changed.
        """
        change_set = ChangeSet(self._master, self._clock())
        with self._writing():
            try:
                yield change_set
            finally:
                change_set.is_open = False
            change_set.committed = change_set._commit()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction; one that is open already may not be joined unawares."""
        if self._change_set_is_open:
            raise RuntimeError("a change set is open: use its own methods, or wait until its block has ended")
        self._change_set_is_open = True
        try:
            with _violations_as_bad_fields(), self._master.writing():
                yield
        finally:
            self._change_set_is_open = False

    # Feeds

    def plan_import(self, context: str, file: Path | str, **options: Unpack[ImportOptions]) -> ImportPlan:
        """
        Say what an import of a feed would change; change nothing.

        Args:
            context: such as "product" or "price".
            file: .csv, .tsv, .ndjson, .jsonl or .parquet, of at most 1 GiB.
            options: as `ImportOptions` describes them: scope, full, where, mapping and the guards.

        Raises:
            BadFeed: with file, line and field of the first mistake.
            BadField: the context, `where` or `mapping` names something that there is not.
            ContextDiffers: the context is declared here otherwise than in the master.
        """
        request = self._request(context, Path(file), options)
        with self._master.reading():
            return make_plan(self._master, request, self._clock())

    def apply(self, plan: ImportPlan) -> Imported:
        """
        Import what was planned, as one change set.

        Under the write lock the plan is proven to be still true: the stream has not changed, and the plan is not older
        than a minute. If it is not, it is made anew from the feed that it holds, and the guards judge the new one.

        Raises:
            GuardTripped: with the plan that was refused; nothing was imported.
            BadField: no store would accept a row; nothing was imported.
        """
        at_ms = self._clock()
        with self._writing():
            if not plan.still_holds(self._master, at_ms):
                plan = make_plan(self._master, plan.request, at_ms)
            return self._import(plan, at_ms, _silent)

    def import_feed(self, context: str, file: Path | str, **options: Unpack[ImportOptions]) -> Imported:
        """
        Plan and apply in one step: compare and commit under one write lock.

        Arguments and errors are those of `plan_import` and `apply`.
        """
        request = self._request(context, Path(file), options)
        at_ms = self._clock()
        with self._writing():
            plan = make_plan(self._master, request, at_ms)
            return self._import(plan, at_ms, options.get("progress", _silent))

    def _request(self, context: str, file: Path, options: ImportOptions) -> FeedImport:
        """Check what was said, then read the feed."""
        progress = options.get("progress", _silent)
        stream = stream_named(self._master.contexts, context, options.get("scope", SCOPE_ALL))
        mapping = options.get("mapping", {})
        check_mapping(stream.context, mapping)
        part = part_of(stream.context, options.get("where", {}))
        progress(f"reading {file.name}")
        feed = read_feed(file, stream.context, mapping)
        progress(f"comparing {len(feed)} rows")
        return FeedImport(
            stream,
            file.name,
            feed,
            part,
            full=options.get("full", False),
            forced=options.get("force", False) or (options.get("allow_empty", False) and not feed),
            max_deletes=options.get("max_deletes"),
            max_changes=options.get("max_changes"),
        )

    def _import(self, plan: ImportPlan, at_ms: int, progress: Progress) -> Imported:
        """Commit a plan that holds; within a transaction."""
        if plan.refused is not None:
            raise GuardTripped(plan.refused.guard, plan.refused.problem, hint=plan.refused.hint, plan=plan)
        progress(f"committing {plan.impact.events} events")
        return Imported(plan, self._master.commit(plan.request.stream, plan.changes, at_ms, plan.live))

    # What there is

    def streams(self) -> list[StreamRow]:
        """Every stream, by name: its epoch, newest seq, digest and count of live rows."""
        return self._master.streams()

    def stream(self, context: str, *, scope: str = SCOPE_ALL) -> StreamRow | None:
        """One of them; None if nothing was ever published in that scope."""
        return self._master.stream(stream_named(self.contexts, context, scope))

    def status(self) -> Status:
        """The master's streams, how much of each is published, and whether `hq run` is at work."""
        return status_of(self._master)

    def left_out(self) -> dict[str, str]:
        """The contexts that are declared here otherwise than in the master, each with the reason; not published."""
        return left_out(self._master.query, self._master.contexts)

    def log(
        self, stream: str | None = None, *, since_seq: int | None = None, since_ms: int | None = None, limit: int = 50
    ) -> list[LoggedEvent]:
        """
        Events in order of time: from a seq or a time on, else the newest.

        Args:
            stream: only of this one, such as "price/all".
            since_ms: milliseconds since 1970.
            limit: events at most.

        Raises:
            BadField: there is no such stream.
        """
        with _violations_as_bad_fields():
            wanted = Stream.parse(stream, self._master.contexts) if stream else None
        return [LoggedEvent(**each) for each in audit.logged(self._master, wanted, since_seq, since_ms, limit)]

    def await_published(self, done: Committed, timeout_s: float) -> None:
        """
        Return when the broker has what was committed.

        Raises:
            NotPublished: it has not after `timeout_s` seconds; the commit stands.
        """
        row = self._master.stream(done.stream)
        until_s = time.monotonic() + timeout_s
        while True:
            epoch, seq = read_position(self.path, done.stream)
            if row is not None and epoch == row.epoch and seq >= done.head_seq:
                return
            if time.monotonic() >= until_s:
                break
            time.sleep(POLL_S)
        hint = "check the broker: hq status" if lock.runs(self.path) else "start it: hq run"
        raise NotPublished(
            f"{done.stream} {done.head_seq} is committed, but not published after {timeout_s:g} s", hint=hint
        )

    def verify(self) -> Verification:
        """Prove that rows, log and digests agree, and that stores have what the master had; reads all of it."""
        return verification_of(self._master)

    # Look

    def get(self, context: str, key: str | Sequence[str], *, scope: str = SCOPE_ALL) -> dict[str, Any] | None:
        """
        One row of the master; None: there is none.

        Args:
            key: the values of the key's columns, in order; those that have a default may be left out at the end.

        Returns:
            `scope`, `seq` and every column by name: a schedule as a list of `{"starts_at", "ends_at", "amount_minor"}`,
            a JSON object as a dict.

        Raises:
            BadField: no such context or stream, or a key of another length.
        """
        with _violations_as_bad_fields():
            stream = stream_named(self.contexts, context, scope)
            return lookup.row_of(self._master, stream, lookup.key_given(stream.context, key))

    def prices(
        self, sku: str, *, scope: str = SCOPE_ALL, at: str | datetime | None = None, kind: str | None = None
    ) -> Prices:
        """
        The prices of a SKU for a scope, each step of each line, the one in force first, with what decided.

        The lines of the scope and of "all" compete, by the precedence of stores. A store that follows further scopes,
        or has an override, may have another price: its own `explain` says.

        Args:
            at: a time, as text with Z or an offset or as a datetime with a time zone; now, if left out.
            kind: only lines of this kind compete.

        Raises:
            BadField: no name of a scope, no kind of a price, or no time.
        """
        stream = stream_named(self.contexts, PRICE.name, scope)
        if kind is not None and kind not in KINDS_OF_PRICE:
            raise BadField("kind", f"{kind[:80]!r} is not one of {', '.join(KINDS_OF_PRICE)}")
        return lookup.prices_of(self._master, sku, stream.scope, self._seconds(at), kind)

    def search(self, text: str, *, scope: str = SCOPE_ALL, limit: int = SEARCH_LIMIT) -> Found:
        """
        Products with every word of the text in their SKU, GTIN or name; parts of words count, accents and case do not.

        Reads the products of the scope one after the other, until `limit` are found: about a second for 100,000.

        Raises:
            BadField: no word, no such stream, or a limit outside of 1..SEARCH_LIMIT_MAX.
        """
        if not 1 <= limit <= SEARCH_LIMIT_MAX:
            raise BadField("limit", f"{limit} must be between 1 and {SEARCH_LIMIT_MAX}")
        stream = stream_named(self.contexts, PRODUCT.name, scope)
        return lookup.search(self._master, stream, text, limit)

    def export(self, context: str, *, scope: str = SCOPE_ALL, file_format: Format = "csv") -> Iterator[str]:
        """
        All rows of a stream as a feed, by key: lines of text, with their ends.

        An import of that feed with `full` changes nothing. A price line is a row for each step of its schedule, also
        for those that are over. The lines come from one snapshot on a connection of its own, which ends with the
        iteration.

        Args:
            file_format: "csv", or "ndjson" with null where CSV has an empty cell.

        Raises:
            BadField: no such context, stream or format.
        """
        if file_format not in get_args(Format):
            raise BadField("format", f"{file_format!r} is not one of {', '.join(get_args(Format))}")
        stream = lookup.existing(self._master, stream_named(self.contexts, context, scope))
        return self._exported(stream, file_format)

    def _exported(self, stream: Stream, file_format: Format) -> Iterator[str]:
        with Master.open(self.path, self.contexts) as master, master.reading():
            yield from lines(stream.context, lookup.exported(master, stream), file_format)

    def _seconds(self, at: str | datetime | None) -> int:
        if at is None:
            return self._clock() // 1000
        try:
            return epoch_seconds(at if isinstance(at, str) else at.isoformat(), any_instant=True)
        except BadTime as error:
            raise BadField("at", error.detail, hint=error.hint) from None

    # Stores

    def stores(self) -> dict[str, StoreStatus]:
        """Each store's last status, by the store's name."""
        return stores_of(self._master)

    def inbox(
        self, after: int = 0, *, limit: int | None = None, store: str | None = None, kind: str | None = None
    ) -> Iterator[InboxEntry]:
        """
        What stores sent, in the order in which it came; from one snapshot, which ends with the iteration.

        Args:
            after: only entries behind this position; keep the last entry's, to go on from there.
            limit: entries at most.
            store, kind: only of this store, only of this type.

        Raises:
            InboxDamaged, InboxUnwritable: the inbox cannot be read.
        """
        with inbox.reading(inbox_path(self.path)) as db:
            if db is not None:
                yield from inbox.entries_after(db, after, ENTRIES_MAX if limit is None else limit, store, kind)

    def overrides(self, store: str | None = None) -> list[StoreOverride]:
        """The prices that stores have set themselves and that are in force now; of one store, or of all."""
        with inbox.reading(inbox_path(self.path)) as db:
            return [] if db is None else overrides.in_force(db, self._clock() // 1000, store)

    # Copies

    def backup(self, file: Path | str) -> int:
        """
        Copy the master to a file that must not exist, and prove the copy; commits go on meanwhile.

        The inbox is not in it.

        Returns:
            The copy's size in bytes.

        Raises:
            BackupRefused: the file is there already, or the master does not prove sound; no copy is left.
        """
        return copies.back_up(self.path, Path(file), self._master.contexts)

    @classmethod
    def restore(
        cls, path: Path | str, file: Path | str, contexts: Contexts | Path | str = BUILT_IN, clock: Clock = wall_ms
    ) -> Path | None:
        """
        Put a copy in the place of the master at `path`; `hq run` must be stopped.

        Every stream begins a new epoch, so each store rebuilds, by itself and while it goes on selling.

        Returns:
            Where the master from before was moved to; None if there was none.

        Raises:
            AlreadyRunning: `hq run` has the master.
            BackupRefused, MasterDamaged, MasterMissing: `file` is no sound copy; nothing was changed.
        """
        registry = contexts if isinstance(contexts, Contexts) else contexts_in(Path(contexts))
        return copies.restore(Path(path), Path(file), clock(), registry)


class ChangeSet:
    """
    Changes that are committed together; `Catalog.change_set` makes one.

    Attributes:
        is_open: whether it takes changes: until its block ends.
        committed: what each stream's changes became, in the order in which streams were first named; empty until the
            block has ended.
    """

    def __init__(self, master: Master, at_ms: int) -> None:
        self.is_open = True
        self.committed: list[Committed] = []
        self._master, self._at_ms = master, at_ms
        self._after: dict[Stream, dict[Key, Row | None]] = {}

    def publish(self, context: str, /, *, scope: str = SCOPE_ALL, **fields: FieldValue) -> None:
        """Change one entity, as `Catalog.publish`; later changes see this one. Raises BadField: it has no effect."""
        stream = stream_named(self._master.contexts, context, scope)
        texts = _texts(stream.context, fields)
        key = edits.key_of(stream.context, texts)
        after, current = self._current(stream, key)
        after[key] = edits.edited(stream.context, texts, current, self._at_ms // 1000)

    def delete(self, context: str, /, *, scope: str = SCOPE_ALL, **key: FieldValue) -> None:
        """Delete one entity, as `Catalog.delete`. Raises BadField: it has no effect."""
        stream = stream_named(self._master.contexts, context, scope)
        texts = _texts(stream.context, key)
        names = stream.context.key_names
        for name in texts.keys() - set(names):
            raise BadField(name, "has no place in a delete", hint=f"name only {', '.join(names)}")
        found = edits.key_of(stream.context, texts)
        self._current(stream, found)[0][found] = None

    def _current(self, stream: Stream, key: Key) -> tuple[dict[Key, Row | None], Row | None]:
        """The changes of a stream so far, and an entity's values after them; None if there is none."""
        if not self.is_open:
            raise RuntimeError("this change set is committed: begin another one")
        after = self._after.setdefault(stream, {})
        if key in after:
            return after, after[key]
        found = self._master.stored(stream, key)
        return after, None if found is None or found.deleted else stream.context.values_of(found.row)

    def _commit(self) -> list[Committed]:
        """Write all of it; within the transaction that `Catalog.change_set` holds."""
        return [
            self._master.commit(stream, [Change(key, values) for key, values in after.items()], self._at_ms)
            for stream, after in self._after.items()
            if after
        ]


def stream_named(contexts: Contexts, context: str, scope: str) -> Stream:
    """The stream of a context and a scope. Raises BadField: unknown context, or no name of a scope."""
    if context not in contexts:
        raise BadField("context", f"{context[:80]!r} is not one of {', '.join(sorted(contexts))}")
    with _violations_as_bad_fields():
        return Stream(contexts[context], checked_name(scope, "scope"))


@contextmanager
def _violations_as_bad_fields() -> Iterator[None]:
    """What the contract refuses of a caller is a mistake of the caller's."""
    try:
        yield
    except ContractViolation as violation:
        raise BadField(violation.field or "", violation.detail) from violation


def _texts(context: Context, fields: Mapping[str, Any]) -> dict[str, str | None]:
    edits.check_names(context, fields)
    return {name: edits.as_text(context, name, value) for name, value in fields.items()}
