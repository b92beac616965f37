"""From changes to events: what a change set does to a stream's rows, sequence and digest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, cast

import msgspec

from storelink.contract.contexts import Context, Key, Row
from storelink.contract.errors import ContractViolation
from storelink.contract.limits import ROW_BYTES_MAX, ROWS_MAX
from storelink.contract.rows import canonical, decode_rows, from_hex, hash_of, row_hash, to_hex
from storelink.contract.streams import Stream

CHANGES_PER_WRITE = 10_000
"""A large change set becomes events part by part, in one transaction, so that memory holds one part's events."""

_encode = msgspec.json.Encoder().encode


class Change(NamedTuple):
    """An entity's new values, in declared order; None deletes it."""

    key: Key
    values: Row | None


class Stored(NamedTuple):
    """What the master holds of an entity: its wire row, or `(seq, *key)` if `deleted`."""

    row: Row
    deleted: bool


class Event(NamedTuple):
    """One change as it is logged; the fields are the columns of `events` after `stream`."""

    seq: int
    at_ms: int
    op: str
    key: str
    changed: str
    prev_seq: int
    row: str
    digest: str
    ends: int


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """What one commit writes. `rows` are the entities' last states; `count` the stream's live rows after it."""

    events: list[Event]
    rows: list[Stored]
    head_seq: int
    digest: str
    count: int


@dataclass(frozen=True, slots=True)
class Tip:
    """A stream's newest seq, its digest and its count of live rows, before a commit."""

    head_seq: int
    digest: str
    count: int


def parts(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    """Cut changes into parts; one part if an entity comes twice, whose second change must see its first."""
    step = CHANGES_PER_WRITE
    if len(changes) > step and len({key for key, _ in changes}) < len(changes):
        step = len(changes)
    return (changes[at : at + step] for at in range(0, len(changes), step))


def earlier(live: Mapping[Key, Row], deleted: Mapping[Key, Stored], changes: Sequence[Change]) -> dict[Key, Stored]:
    """What the master holds of the entities that are changed."""
    found = {key: Stored(row, False) for key, _ in changes if (row := live.get(key)) is not None}
    return found | {key: deleted[key] for key, _ in changes if key in deleted} if deleted else found


def sequence(
    context: Context, tip: Tip, changes: Iterable[Change], before: Mapping[Key, Stored], at_ms: int
) -> ChangeSet:
    """
    Give each change that changes something the next seq; what is already so is dropped.

    Args:
        before: what the master holds of the entities that `changes` name.
    """
    names, width = context.value_names, 1 + len(context.keys)
    seq, acc, count = tip.head_seq, from_hex(tip.digest), tip.count
    after: dict[Key, Stored] = {}
    events: list[Event] = []
    for key, values in changes:
        old = after.get(key) or before.get(key)
        live = None if old is None or old.deleted else old.row[width:]
        if values == live:
            continue
        seq += 1
        new = Stored((seq, *key, *(values or ())), values is None)
        encoded = canonical(new.row)
        if old is not None and not old.deleted:
            acc -= row_hash(old.row)
            count -= 1
        if values is not None:
            acc += hash_of(encoded)
            count += 1
        after[key] = new
        events.append(
            Event(
                seq,
                at_ms,
                "delete" if values is None else "upsert",
                _encode(key).decode(),
                _names_text(_changed(names, live, values)),
                cast(int, old.row[0]) if old else 0,
                encoded.decode(),
                to_hex(acc),
                0,
            )
        )
    if events:
        events[-1] = events[-1]._replace(ends=1)
    return ChangeSet(events, list(after.values()), seq, to_hex(acc), count)


def _changed(names: tuple[str, ...], old: Row | None, new: Row | None) -> tuple[str, ...]:
    """Names of the columns that differ; those that are set, for a new entity; none for a delete."""
    if new is None:
        return ()
    if old is None:
        return tuple([name for name, value in zip(names, new, strict=True) if value is not None])
    return tuple([name for name, a, b in zip(names, old, new, strict=True) if a != b])


@lru_cache
def _names_text(names: tuple[str, ...]) -> str:
    """As JSON; a change set has few different ones."""
    return _encode(names).decode()


def check_as_a_store_would(stream: Stream, made: ChangeSet) -> None:
    """Raise ContractViolation for what no store would accept: it must never get into the master."""
    texts = [event.row for event in made.events]
    if len(max(texts, key=len, default="")) > ROW_BYTES_MAX // 4 or "\\u0000" in "".join(texts):
        _check_each(made)
    first = made.head_seq - len(texts) + 1
    rows = [texts[cast(int, row[0]) - first] for row, deleted in made.rows if not deleted]
    for at in range(0, len(rows), ROWS_MAX):
        decode_rows(stream.context, msgspec.Raw(f"[{','.join(rows[at : at + ROWS_MAX])}]".encode()), msgspec.Raw(b"[]"))


def check_row_bytes(key: str, size_bytes: int) -> None:
    """Raise ContractViolation for a row that would not fit into every message."""
    if size_bytes > ROW_BYTES_MAX:
        problem = f"{key} has {size_bytes} bytes with all its columns; a row has at most {ROW_BYTES_MAX}"
        raise ContractViolation("oversized", problem)


def _check_each(made: ChangeSet) -> None:
    for event in made.events:
        check_row_bytes(event.key, len(event.row.encode()))
        if "\\u0000" in event.row:
            raise ContractViolation("bad_json", f"{event.key} holds a NUL character")
