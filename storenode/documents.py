"""The documents that a store gives to programs: one definition of their keys for the library, `--json` and HTTP.

Typed dictionaries, not classes of our own: a document is printed as JSON by two of its three users, the third gets what
the guides show, and a later version may add keys. Times are RFC 3339 in UTC, to the second where nothing else is said;
`ends_at` is exclusive, null: open. `amount_minor` is an integer in the currency's minor unit (cents).
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

State = Literal["live", "catching_up", "offline", "rebuilding", "bootstrapping", "diverged"]
Clock = Literal["ok", "corrected", "unconfirmed", "suspect", "held", "behind"]


class Price(TypedDict):
    """A price in force. `scope`: the stream's; of this store's own price (`kind` "override") the store's id."""

    sku: str
    amount_minor: int
    currency: str
    kind: str
    scope: str
    starts_at: str
    ends_at: str | None


class Product(TypedDict):
    """A product's row in the most specific scope that has it, and its price now. `seq`: HQ's change that made it."""

    scope: str
    seq: int
    sku: str
    gtin: str | None
    name: str | None
    description: str | None
    brand: str | None
    department: str | None
    category: str | None
    product_type: str | None
    pack_size: str | None
    uom: str | None
    manufacturer: str | None
    status: str | None
    attributes: dict[str, Any] | None
    price: Price | None


class FoundProduct(TypedDict):
    """A product that a search found, with its price now; both nulls: there is none."""

    sku: str
    gtin: str | None
    name: str | None
    brand: str | None
    pack_size: str | None
    department: str | None
    category: str | None
    amount_minor: int | None
    currency: str | None


class Commit(TypedDict):
    """What brought a row here; times to the millisecond. `how`: "live", or "catch_up": then `published_at` is that of
    the head, and the change itself may be older."""

    how: str
    first_seq: int
    last_seq: int
    epoch: str
    digest: str
    published_at: str | None
    received_at: str
    applied_at: str


class OwnPrice(TypedDict):
    """What stands behind a candidate that this store set itself; `seq`: the outbox's entry."""

    reason: str
    set_at: str
    until: str
    seq: int
    ended_early: bool


class Candidate(TypedDict):
    """One price that competes. `why`: what decided. `stream` null: it is this store's own; `commit` null: not kept."""

    amount_minor: int
    currency: str
    kind: str
    scope: str
    starts_at: str
    ends_at: str | None
    in_force: bool
    won: bool
    why: str
    stream: str | None
    seq: int
    commit: Commit | None
    override: OwnPrice | None


class HeldPrice(TypedDict):
    """A newer version of a price line, which breaks a rule and is not served."""

    stream: str
    kind: str
    seq: int
    reason: str
    at: str


class Explanation(TypedDict):
    """Why a SKU costs what it costs at `at`. `candidates`: those in force first, the winner before all."""

    sku: str
    at: str
    rule: str
    price: Price | None
    effective_at: str | None
    candidates: list[Candidate]
    held: list[HeldPrice]


class StreamFreshness(TypedDict):
    """How far one stream is; `stale_seconds`: since HQ last said that this is its newest (null: never)."""

    state: State
    position: int
    head_seq: int
    lag_events: int
    as_of: str | None
    stale_seconds: int | None


class Freshness(TypedDict):
    """How far to trust what is read. `state`: the worst of the streams that count."""

    state: State
    clock: Clock
    streams: dict[str, StreamFreshness]


class StreamStatus(StreamFreshness):
    """`rows` null: not counted. `refusal`: the message of HQ's that is refused again and again."""

    epoch: str | None
    rows: int | None
    digest: str
    verified_at: str | None
    verified_ok: bool | None
    quarantined: int
    rebuilt_at: str | None
    rebuild_reason: str | None
    refusal: dict[str, Any] | None


class OutboxStatus(TypedDict):
    """What waits for HQ; nulls where the file cannot be read. `acked_seq`: HQ has all up to it."""

    pending: int | None
    oldest_age_seconds: int | None
    acked_seq: int | None
    refused: int | None


class ClockStatus(TypedDict):
    """`skew_seconds` positive: this machine's clock is ahead of HQ's."""

    skew_seconds: float | None
    verdict: Clock
    correction_seconds: int
    known_at: str | None


class DatabaseStatus(TypedDict):
    """The replica's file, its write-ahead log, and what is free beside them."""

    path: str
    bytes: int
    wal_bytes: int
    free_bytes: int


class Status(TypedDict):
    """All that is known of this store's replica; `pid` null: no daemon runs."""

    store_id: str | None
    state: State
    connected: bool
    pid: int | None
    uptime_seconds: int | None
    streams: dict[str, StreamStatus]
    contexts: dict[str, dict[str, str]]
    outbox: OutboxStatus
    clock: ClockStatus
    database: DatabaseStatus
    counters: dict[str, int]


class QuarantinedEntity(TypedDict):
    """An entity whose newest version breaks a rule and is not served; `row`: that version as HQ sent it."""

    stream: str
    key: list[str]
    seq: int
    reason: str
    at: str
    row: list[Any]


class StreamProof(TypedDict):
    """The digest of the rows that are there and the one that HQ announced. `epoch` null: HQ announced nothing yet."""

    epoch: str | None
    position: int
    rows: int
    digest: str
    announced: str
    ok: bool


class Proof(TypedDict):
    """`ok`: everything equals what HQ announced, and all that a store needs was announced. `file`: "ok", or what is
    wrong with it; then no stream is looked at."""

    ok: bool
    file: str
    streams: dict[str, StreamProof]


class AcceptedEntry(TypedDict):
    """An entry that is on disk; (epoch, seq) is its name for ever."""

    epoch: str
    seq: int
    type: str
    time: str


class WaitingEntry(TypedDict):
    """An entry that HQ does not have yet."""

    seq: int
    type: str
    time: str
    data: Any


class RefusedEntry(TypedDict):
    """An entry that HQ did not take, or that cannot travel, and why."""

    epoch: str
    seq: int
    type: str
    time: str
    reason: str


class OutboxListing(TypedDict):
    """What waits for HQ, the oldest first, and what was refused."""

    epoch: str
    pending: int
    acked_seq: int
    entries: list[WaitingEntry]
    refused: list[RefusedEntry]


class Override(TypedDict):
    """A price of this store's own; `seq`: the outbox's entry that tells HQ of it."""

    sku: str
    amount_minor: int
    currency: str
    starts_at: str
    ends_at: str
    reason: str
    set_at: str
    seq: int


class OverrideInForce(Override):
    """`told`: HQ has it."""

    told: bool


class ChangedOverride(Override):
    """`effective`: readers of the replica see it; else they will once the daemon runs."""

    withdrawn: bool
    effective: bool
