"""The catalog as programs at a store read it: the questions, and a connection that outlives the replica's file.

    with open_catalog("/var/lib/storenode/replica.db") as catalog:
        price = catalog.price("4011")

`Questions` is what `Catalog`, `Snapshot` (several questions of one state), the commands and the HTTP API share. It
needs no daemon, no network and no right to write. What is not there is None: a till meets unknown SKUs every day, and a
type checker then sees that the case is handled. Guide: docs/library-store.md.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar, cast

from storelink.contract.contexts import BUILT_IN, PRODUCT, Context, Contexts
from storelink.contract.errors import ContractViolation
from storelink.contract.times import BadTime, epoch_seconds, rfc3339
from storelink.host.settings import Declarations
from storenode.config import outbox_beside
from storenode.core import states
from storenode.core.clock_rules import UNCONFIRMED
from storenode.documents import (
    Explanation,
    FoundProduct,
    Freshness,
    Price,
    Product,
    Proof,
    QuarantinedEntity,
    Status,
    StreamFreshness,
)
from storenode.errors import BadArgument, NotFound, ReplicaDamaged, ReplicaMissing
from storenode.outbox.status import outbox_status
from storenode.replica import queries, schema
from storenode.replica.contexts import columns_of
from storenode.replica.explain import explain
from storenode.replica.file import on_disk, open_to_read, translated
from storenode.replica.status import daemon_alive, status_document
from storenode.replica.verify import check_file, scan

T = TypeVar("T")
Question = Callable[[sqlite3.Connection], T]
Time = datetime | str | int
"""A `datetime` with a zone, RFC 3339 text, or whole seconds since 1970."""

SEARCH_LIMIT, SEARCH_LIMIT_MAX = 20, 1_000
SAME_GTIN_MAX = 20

_OF_SQLITE = (sqlite3.DatabaseError, UnicodeDecodeError)

_BY_GTIN = (
    f"SELECT p.sku FROM {PRODUCT.table} AS p WHERE p.gtin = ? AND p.rowid = ({schema.product_winner('p.sku')})"
    f" ORDER BY p.sku LIMIT {SAME_GTIN_MAX}"
)
_FRESHNESS = (
    "SELECT f.stream, f.clock, f.state, f.position, f.head_seq, f.lag_events, f.as_of, f.stale_seconds, s.epoch,"
    " s.verified_ok FROM freshness AS f JOIN streams AS s ON s.stream = f.stream ORDER BY f.stream"
)


def open_catalog(
    path: Path | str, *, contexts: Contexts | Path | str | None = None, outbox: Path | str | None = None
) -> Catalog:
    """
    Open a store's replica to read it.

    The file is opened with the first question, so a program may start before the replica is there.

    Args:
        path: the replica, the setting `db`.
        contexts: the file of contexts that the chain declares itself, the setting `contexts`; without it, only
            products and prices are known.
        outbox: the outbox, whose state `status` tells; `outbox.db` beside the replica if left out.

    Raises:
        BadArgument: the file of contexts cannot be read, or has mistakes.
    """
    return Catalog(Path(path), _registry(contexts), outbox_beside(Path(path)) if outbox is None else Path(outbox))


def seconds_of(time: Time) -> int:
    """A time in whole seconds since 1970. Raises BadArgument: no time, or one without a zone."""
    if isinstance(time, int):
        return time
    try:
        return epoch_seconds(time.isoformat() if isinstance(time, datetime) else time, any_instant=True)
    except BadTime as error:
        raise BadArgument(error.detail, hint=error.hint) from None


def or_not_found(answer: T | None, what: str, place: str = "this replica") -> T:
    """The answer; where it is None, NotFound says what is not there. For commands and HTTP, whose clients expect it."""
    if answer is None:
        raise NotFound(f"no {what} in {place}", hint="is it fresh? storenode status")
    return answer


def name_of_price(sku: str, at_s: int | None) -> str:
    """What is not there where a SKU has no price, for `or_not_found`."""
    return f"price for {sku} " + ("now" if at_s is None else f"at {rfc3339(at_s * 1000)}")


class Questions(ABC):
    """
    What a replica answers. Each answer is of one state of the replica; documents: storenode/documents.py.

    Every question raises:
        ReplicaMissing: there is no replica yet.
        ReplicaBusy: another program keeps the file locked for longer than 2 s.
        ReplicaUnwritable: this user may not read the file, or the disk fails.
        ReplicaDamaged: the file is not a replica, or a damaged one; the daemon replaces it.
        BadArgument: a text that is no Unicode, or a time that is none.
    """

    def __init__(self, path: Path, contexts: Contexts, outbox: Path) -> None:
        self.path, self.contexts, self.outbox = path, contexts, outbox

    @abstractmethod
    def _ask(self, question: Question[T], *, one_statement: bool = False) -> T:
        """Answer from one state of the replica; `one_statement` is of one state by itself, and spared a transaction."""

    def price(self, sku: str, kind: str | None = None, *, at: Time | None = None) -> Price | None:
        """
        The price of a SKU in force; None: it has none.

        Args:
            kind: `regular`, `promotion`, `clearance` or `override`: the price in force of that kind, which need not be
                the one to sell by (for "was 2.49, now 1.99"). If left out, the one to sell by.
            at: now if left out: the time that prices go by, which HQ vouches for (docs/operating/prices.md).
        """
        at_s = None if at is None else seconds_of(at)
        if kind is not None:
            return self._ask(lambda db: _price_of_kind(db, sku, kind, at_s))
        return self._ask(lambda db: _price(db, sku, at_s), one_statement=True)

    def prices(self, skus: Iterable[str], *, at: Time | None = None) -> dict[str, Price | None]:
        """The price of each SKU, in the order given, all of one state; None: it has none. About 25 us a SKU."""
        wanted, at_s = tuple(skus), None if at is None else seconds_of(at)
        return self._ask(lambda db: {sku: _price(db, sku, at_s) for sku in wanted})

    def product(self, sku: str) -> Product | None:
        """A product with its price now; None: this replica does not have it."""
        return self._ask(lambda db: _product(db, sku))

    def products_by_gtin(self, gtin: str) -> list[Product]:
        """The products that bear a barcode, by SKU; usually one or none, at most SAME_GTIN_MAX."""

        def question(db: sqlite3.Connection) -> list[Product]:
            skus = db.execute(_BY_GTIN, (gtin,)).fetchall()
            return [product for (sku,) in skus if (product := _product(db, sku))]

        return self._ask(question)

    def search(self, text: str, *, limit: int = SEARCH_LIMIT) -> list[FoundProduct]:
        """
        Products in which every word of `text` begins a word, the best matches first.

        Args:
            text: as a person types it; any text is harmless.
            limit: 1 to SEARCH_LIMIT_MAX.
        """
        _check_limit(limit)
        return self._ask(lambda db: cast(list[FoundProduct], queries.search(db, text, limit)))

    def explain(self, sku: str, *, at: Time | None = None) -> Explanation | None:
        """Every price that competes for a SKU, what won and why; None: this replica has no price of it at all."""
        at_s = None if at is None else seconds_of(at)
        return self._ask(lambda db: _explanation(db, sku, at_s))

    def get(self, context: str, key: str | Sequence[str], *, scope: str | None = None) -> dict[str, Any] | None:
        """
        One row of any context, also of a declared one; None: it is not there.

        Args:
            key: the values of the key's columns, in order; those that have a default may be left out at the end.
            scope: only of this scope; of the most specific one that has the row if left out.

        Raises:
            BadArgument: no such context, or a key of another length.
            NotFound: the daemon has not made the context's table yet.
        """
        declared = self._context(context)
        given = (key,) if isinstance(key, str) else tuple(key)
        completed = given + tuple(str(c.default) for c in declared.keys[len(given) :] if c.default)
        if len(completed) != len(declared.keys):
            raise BadArgument(f"a {context} is named by {' '.join(declared.key_names).upper()}")

        def question(db: sqlite3.Connection) -> dict[str, Any] | None:
            columns_of(db, declared)
            return _or_none(lambda: queries.get(db, declared, completed, scope))

        return self._ask(question)

    def search_rows(self, context: str, text: str, *, limit: int = SEARCH_LIMIT) -> list[dict[str, Any]]:
        """
        Rows of a declared context, found by their words as `search` finds products.

        Raises:
            BadArgument: no such context, or it is declared without columns to search.
            NotFound: the daemon has not made the index yet.
        """
        declared = self._context(context)
        _check_limit(limit)
        return self._ask(lambda db: queries.search_context(db, declared, text, limit))

    def freshness(self) -> Freshness:
        """How far to trust what is read; cheap enough for every sale. `live` ends with the daemon."""
        return self._ask(lambda db: _freshness(db, self.path, self.contexts))

    def status(self, *, counted: bool = True) -> Status:
        """
        All that is known of this store's replica, its outbox and its clock; keys: docs/operating/reference.md.

        Args:
            counted: whether `rows` are counted, which takes 50 ms a million, or null.
        """

        def question(db: sqlite3.Connection) -> Status:
            try:
                found = status_document(self.path, self.contexts, db, counted=counted)
            except FileNotFoundError as error:
                raise ReplicaMissing(f"{self.path} was moved away this moment", hint="storenode status") from error
            document = {"store_id": found.pop("store_id"), "state": states.overall(found["streams"]), **found}
            return cast(Status, document | {"outbox": outbox_status(self.outbox)})

        return self._ask(question)

    def quarantined(self) -> list[QuarantinedEntity]:
        """The entities whose newest version breaks a rule and is not served; the version before it is."""
        return self._ask(lambda db: cast(list[QuarantinedEntity], queries.quarantined(db)))

    def verify(self) -> Proof:
        """
        Check the file and hash every row: equal to what HQ announced? 450,000 rows a second, at full load.

        On connections of its own, each stream of its own state: a long read would keep the log from shrinking.
        """
        try:
            check_file(self.path)
        except ReplicaDamaged as error:
            return {"ok": False, "file": str(error), "streams": {}}
        scans = [scan(self.path, stream) for stream in queries.streams(self.path, self.contexts)]
        is_announced = any(s.epoch for s in scans) and all(s.epoch for s in scans if str(s.stream) in states.NEEDED)
        return {
            "ok": is_announced and all(s.ok for s in scans),
            "file": "ok",
            "streams": {
                str(s.stream): {
                    "epoch": s.epoch,
                    "position": s.position,
                    "rows": s.rows,
                    "digest": s.digest,
                    "announced": s.announced,
                    "ok": s.ok,
                }
                for s in scans
            },
        }

    def _context(self, name: str) -> Context:
        if name not in self.contexts:
            raise BadArgument(f"{name[:80]!r} is not one of {', '.join(self.contexts)}")
        return self.contexts[name]


class Snapshot(Questions):
    """
    Answers from a connection whose owner holds a transaction: all of one state. It must not outlive that.

    The HTTP API's entrance: its pool owns the connection, the deadline and SQLite's errors, which come as they are.
    """

    def __init__(self, db: sqlite3.Connection, path: Path, contexts: Contexts, outbox: Path) -> None:
        super().__init__(path, contexts, outbox)
        self._db = db

    def _ask(self, question: Question[T], *, one_statement: bool = False) -> T:  # noqa: ARG002 - its owner's matter
        return question(self._db)


class _CatalogSnapshot(Snapshot):
    """A Catalog's snapshot, which has its errors too."""

    def _ask(self, question: Question[T], *, one_statement: bool = False) -> T:
        try:
            return super()._ask(question, one_statement=one_statement)
        except UnicodeEncodeError as error:
            raise _no_text(error) from error
        except _OF_SQLITE:
            with translated(self.path):
                raise


class Catalog(Questions):
    """
    A replica, opened by its name: each question is asked of the file that has the name now.

    One connection, which is kept. The thread that asks first owns it; another thread, or a process forked later, opens
    a Catalog of its own (RuntimeError says so). While no file has the name (the daemon is replacing it), the one that
    is open answers on.
    """

    def __init__(self, path: Path, contexts: Contexts, outbox: Path) -> None:
        super().__init__(path, contexts, outbox)
        self._name = os.fspath(path)
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._owner: tuple[int, int] | None = None
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; there are no answers any more."""
        self._disconnect()
        self._owner, self._is_closed = None, True

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Several questions of one state of the replica. Keep it short: meanwhile the log cannot shrink."""
        db = self._connected()
        with _state(db):
            yield _CatalogSnapshot(db, self.path, self.contexts, self.outbox)

    def _ask(self, question: Question[T], *, one_statement: bool = False) -> T:
        try:
            return self._asked(question, one_statement=one_statement)
        except UnicodeEncodeError as error:
            raise _no_text(error) from error
        except _OF_SQLITE:
            failed = self._file
            self._disconnect()
            with translated(self.path):
                if self._file_there() in (None, failed):
                    raise
                return self._asked(question, one_statement=one_statement)  # it was replaced while we read

    def _asked(self, question: Question[T], *, one_statement: bool) -> T:
        db = self._connected()
        if one_statement:
            return question(db)
        with _state(db):
            return question(db)

    def _connected(self) -> sqlite3.Connection:
        """The connection to the file that has the name now; within a snapshot, the snapshot's."""
        if self._owner != (os.getpid(), threading.get_ident()):
            self._take()
        if self._db is not None and self._db.in_transaction:
            return self._db
        file = self._file_there()
        if self._db is not None and file in (None, self._file):
            return self._db
        self._disconnect()
        self._db, self._file = _opened(self.path), file
        return self._db

    def _file_there(self) -> tuple[int, int] | None:
        """What has the name now. By `stat`: to open and close the file would drop SQLite's locks."""
        try:
            found = os.stat(self._name)  # noqa: PTH116 - half of what Path.stat costs
        except FileNotFoundError:
            return None
        except OSError:
            with on_disk(self.path):
                raise
        return (found.st_dev, found.st_ino)

    def _take(self) -> None:
        """The first that asks becomes the owner."""
        if self._is_closed:
            raise RuntimeError("this Catalog is closed")
        if self._owner is not None:
            raise RuntimeError("a Catalog belongs to the thread that asked it first: open one in each thread")
        self._owner = (os.getpid(), threading.get_ident())

    def _disconnect(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
        self._db = None


@contextmanager
def _state(db: sqlite3.Connection) -> Iterator[None]:
    """All that is read inside is of one state; of the one outside, if there is one."""
    if db.in_transaction:
        yield
        return
    db.execute("BEGIN")
    try:
        yield
    finally:
        with suppress(sqlite3.OperationalError):  # an error may have ended it
            db.execute("ROLLBACK")


def _no_text(error: UnicodeEncodeError) -> BadArgument:
    return BadArgument(f"a text is not Unicode: {error.reason}")


def _opened(path: Path) -> sqlite3.Connection:
    with translated(path):
        return open_to_read(path)


def _registry(contexts: Contexts | Path | str | None) -> Contexts:
    if contexts is None:
        return BUILT_IN
    if isinstance(contexts, Contexts):
        return contexts
    try:
        return BUILT_IN.with_declared(Declarations.read(str(contexts)).contexts)
    except (ValueError, ContractViolation) as error:
        raise BadArgument(f"contexts: {error}") from error


def _price(db: sqlite3.Connection, sku: str, at_s: int | None) -> Price | None:
    return cast(Price | None, _or_none(lambda: queries.price(db, sku, at_s)))


def _price_of_kind(db: sqlite3.Connection, sku: str, kind: str, at_s: int | None) -> Price | None:
    found = _explanation(db, sku, at_s)
    candidates = found["candidates"] if found else []
    best = next((each for each in candidates if each["in_force"] and each["kind"] == kind), None)
    if best is None:
        return None
    return {
        "sku": sku,
        "amount_minor": best["amount_minor"],
        "currency": best["currency"],
        "kind": best["kind"],
        "scope": best["scope"],
        "starts_at": best["starts_at"],
        "ends_at": best["ends_at"],
    }


def _product(db: sqlite3.Connection, sku: str) -> Product | None:
    row = _or_none(lambda: queries.get(db, PRODUCT, (sku,)))
    return None if row is None else cast(Product, row | {"price": _price(db, sku, None)})


def _explanation(db: sqlite3.Connection, sku: str, at_s: int | None) -> Explanation | None:
    return cast(Explanation | None, _or_none(lambda: explain(db, sku, at_s)))


def _freshness(db: sqlite3.Connection, path: Path, contexts: Contexts) -> Freshness:
    is_alive, clock = daemon_alive(path), UNCONFIRMED
    streams: dict[str, Any] = {}
    judged = {}
    for name, verdict, *values, epoch, verified in db.execute(_FRESHNESS):
        if name.partition("/")[0] not in contexts:
            continue
        clock = verdict
        stream = dict(zip(StreamFreshness.__annotations__, values, strict=True))
        if not is_alive and stream["state"] in ("live", "catching_up"):
            stream["state"] = "offline"
        streams[name] = stream
        judged[name] = stream | {"epoch": epoch, "verified_ok": None if verified is None else bool(verified)}
    return cast(Freshness, {"state": states.overall(judged), "clock": clock, "streams": streams})


def _or_none(question: Callable[[], T]) -> T | None:
    try:
        return question()
    except NotFound:
        return None


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= SEARCH_LIMIT_MAX:
        raise BadArgument(f"limit {limit} must be 1 to {SEARCH_LIMIT_MAX}")
