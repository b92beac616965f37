"""`storenode doctor`: looks at everything that a store needs, one thing after the other, and changes nothing.

No database is opened that opening would change: SQLite makes -wal and -shm where they are missing, for root also in a
directory of somebody else's. Verdicts are in `storenode.core`.
"""

from __future__ import annotations

import grp
import os
import pwd
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.cloudevents import Message
from contract.errors import ContractViolation
from contract.messages import decode_head, decode_live
from contract.streams import Stream, head_topic, live_topic, parse_topic
from link.probe import Unreached, Visit, reach, resolve
from storenode import readers, schema
from storenode.config import Examined, Settings
from storenode.core import advice, diagnosis
from storenode.core.advice import FAIL, OK, WARN, Finding
from storenode.core.clock import UNCONFIRMED
from storenode.core.damage import IDENT_AT, MAGIC
from storenode.core.diagnosis import START, Owned, User
from storenode.errors import StorenodeError

SYSTEM_CONFIG = Path("/etc/storenode/storenode.toml")
HEADS_S = 2.0
HEARTBEAT_S = 6.0
"""HQ sends a heartbeat every 5 s unless it is told otherwise."""

VERSION_AT = 60
"""Where SQLite's header has the user version, big-endian, 4 bytes."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, and what was found."""

    name: str
    finding: Finding


def checks(found: Examined, outbox_status: Callable[[Path], dict[str, Any]]) -> Iterator[Check]:
    """Look at everything; what cannot be looked at is said and passed over. About 15 s at the most."""
    names = set()
    for check in _checks(found, outbox_status):
        names.add(check.name)
        yield check
    if "clock" not in names:
        yield Check("clock", advice.clock({"skew_seconds": None}))


def _checks(found: Examined, outbox_status: Callable[[Path], dict[str, Any]]) -> Iterator[Check]:
    settings = found.settings
    yield from _configuration(found)
    yield Check("sqlite", _sqlite())
    facts: dict[str, Any] | None = None
    if "db" in found.broken:
        yield Check("replica", Finding(WARN, "The replica was not looked at: the setting db is wrong."))
    else:
        yield from _guarded("directory", lambda: _places(settings))
        facts = _facts(settings, outbox_status)
        yield from _guarded("replica", lambda: _replica(settings, facts))
    if found.broken & {"broker", "root", "scopes"}:
        yield Check("broker", Finding(WARN, "The broker was not visited: broker, root or scopes is wrong."))
        return
    yield from _broker(settings, facts)


def _configuration(found: Examined) -> Iterator[Check]:
    for mistake in found.mistakes:
        yield Check("configuration", Finding(FAIL, f"{mistake}.", "correct it, then systemctl restart storenode"))
    if found.mistakes:
        return
    settings, path = found.settings, found.path
    if path is None and SYSTEM_CONFIG.exists():
        yield Check(
            "configuration",
            Finding(
                WARN, f"No configuration was named, so this is about the defaults and not about {SYSTEM_CONFIG}.",
                f"storenode --config {SYSTEM_CONFIG} doctor",
            ),
        )  # fmt: skip
        return
    if path is not None and settings.broker.password is not None:
        with suppress(OSError):
            if path.stat().st_mode & 0o004:
                found_open = Finding(WARN, f"Anybody can read the password in {path}.", f"chmod o-r {path}")
                yield Check("configuration", found_open)
                return
    whence = f"{path} is" if path else "The settings are"
    said = f"{whence} sound: store {settings.store_id}, scopes {','.join(settings.scopes)}, broker {settings.broker}."
    yield Check("configuration", Finding(OK, said))


def _sqlite() -> Finding:
    with closing(sqlite3.connect(":memory:")) as db:
        options = {row[0] for row in db.execute("PRAGMA compile_options")}
    return diagnosis.sqlite(sqlite3.sqlite_version_info, fts5="ENABLE_FTS5" in options)


def _guarded(name: str, look: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """What this user may not look at is a finding, not an end."""
    try:
        yield from look()
    except OSError as error:
        said = f"{error.filename or 'A file'} may not be looked at by this user: {error.strerror}."
        yield Check(name, Finding(WARN, said, "sudo storenode doctor, with the same settings"))


def _places(settings: Settings) -> Iterator[Check]:
    """Directory and files: whose they are, and what the daemon and readers may do with them."""
    home = _owned(settings.db.parent)
    if home is None:
        said = f"There is no directory {settings.db.parent}; the daemon makes it if it may."
        yield Check("directory", Finding(WARN, said, START))
        return
    replica = _owned(settings.db)
    daemon = _user(home.uid if home.uid or replica is None else replica.uid)
    yield Check("directory", diagnosis.directory(home, daemon))
    yield Check("disk", advice.disk(_free_bytes(settings.db.parent)))
    if replica is not None:
        yield Check("permissions", diagnosis.files("the replica", _beside(settings.db), daemon))
    outbox = settings.outbox_path
    if _owned(outbox) is not None:
        yield Check("permissions", diagnosis.files("the outbox", _beside(outbox), daemon))


def _beside(db: Path) -> list[Owned]:
    """A database and what SQLite and the daemon keep beside it, as far as it is there."""
    return [each for suffix in ("", "-wal", "-shm", ".lock", ".spool") if (each := _owned(Path(f"{db}{suffix}")))]


def _facts(settings: Settings, outbox_status: Callable[[Path], dict[str, Any]]) -> dict[str, Any] | None:
    """The status document, and what the screen knows besides; None where the replica cannot be opened unchanged."""
    try:
        if not _may_open(settings.db):
            return None
        outbox = settings.outbox_path
        found = readers.status(settings.db) | readers.beside_status(settings.db)
        known = outbox_status(outbox) if not outbox.exists() or _may_open(outbox) else None
    except (OSError, StorenodeError):
        return None
    return found | {"outbox": known}


def _may_open(db: Path) -> bool:
    """Whether opening a database read-only makes no file."""
    return all(os.access(f"{db}{suffix}", os.R_OK) for suffix in ("", "-wal", "-shm"))


def _replica(settings: Settings, facts: dict[str, Any] | None) -> Iterator[Check]:
    """The replica and the daemon that keeps it."""
    alive = readers.daemon_alive(settings.db)
    if not settings.db.exists():
        yield Check("daemon", advice.daemon(None, running=alive, seen_s=0))
        said = f"There is no replica at {settings.db}: there is nothing to sell by yet."
        yield Check("replica", Finding(FAIL, said, "" if alive else START))
        return
    with settings.db.open("rb") as file:
        header = file.read(100)
    if (strange := _strange(header, settings.db)) is not None:
        yield Check("replica", strange)
    if facts is None:
        yield Check("daemon", advice.daemon(None, running=alive, seen_s=0))
        said = "What the replica holds was not looked at: to open it would change it."
        yield Check("replica", Finding(WARN, said, START))
        return
    daemon = advice.daemon(facts["pid"], running=alive, seen_s=facts["seen_seconds"])
    if daemon.verdict == OK and not facts["connected"]:
        daemon = Finding(WARN, "The daemon is at work, but its line to the broker is down.", advice.LINE)
    yield Check("daemon", daemon)
    for name, s in facts["streams"].items():
        rows = advice.count(s["rows"], "row", "rows")
        sound = Finding(OK, f"{name}: {s['state']}, {rows}, position {s['position']}.")
        yield Check("replica", advice.stream(name, s, connected=facts["connected"]) or sound)
    outbox = facts["outbox"]
    if outbox is not None:
        yield Check("outbox", advice.outbox(outbox))
    if facts["clock"]["verdict"] != UNCONFIRMED:
        yield Check("clock", advice.clock(facts["clock"]))


def _strange(header: bytes, path: Path) -> Finding | None:
    ident = int.from_bytes(header[IDENT_AT : IDENT_AT + 4], "big")
    version = int.from_bytes(header[VERSION_AT : VERSION_AT + 4], "big")
    if not header.startswith(MAGIC) or ident not in (schema.APPLICATION_ID, 0):
        return Finding(FAIL, f"{path} is not a replica.", "check db; or move the file away, then " + START)
    if version > schema.VERSION:
        return Finding(FAIL, f"{path} is of a newer storenode.", "install that version again")
    return None


def _broker(settings: Settings, facts: dict[str, Any] | None) -> Iterator[Check]:
    """Name, port, welcome, then what HQ left there and whether it speaks."""
    url = settings.broker
    try:
        addresses = resolve(url)
    except Unreached as error:
        yield Check("broker", diagnosis.unresolved(url.host, str(error)))
        return
    try:
        place = reach(addresses)
    except Unreached as error:
        yield Check("broker", diagnosis.unreached(f"{url.host}:{url.port}", str(error)))
        return
    yield Check("broker", Finding(OK, f"{url.host} is {place}, and port {url.port} is open."))
    try:
        with Visit(url, f"doctor-{settings.store_id}") as visit:
            visit.connect()
            yield Check("credentials", Finding(OK, f"The broker {url} lets us in."))
            yield from _hq(settings, visit, facts)
    except Unreached as error:
        yield Check("credentials", diagnosis.refused(str(url), str(error), tls=url.tls))


class _Ear:
    """Hears heads and live messages; the clock by them."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.heads: set[Stream] = set()
        self.broken: dict[Stream, str] = {}
        self.live = False
        self.skew_ms: int | None = None

    def take(self, message: Message) -> None:
        """Take a message of a stream that is followed."""
        wall_ms = time.time_ns() // 1_000_000
        kind, stream, _ = parse_topic(self._root, message.topic)
        try:
            if kind == "head":
                self.heads.add(stream)
                at_ms = decode_head(self._root, message).at_ms
                if wall_ms < at_ms:  # that was some time ago: it says nothing about a clock that is ahead
                    self.skew_ms = min(self.skew_ms or 0, wall_ms - at_ms)
            else:
                self.live = True
                self.skew_ms = wall_ms - decode_live(self._root, message).at_ms
        except ContractViolation as violation:
            self.broken.setdefault(stream, violation.detail)


def _hq(settings: Settings, visit: Visit, facts: dict[str, Any] | None) -> Iterator[Check]:
    ear, streams = _Ear(settings.root), settings.streams()

    def all_heads(message: Message) -> bool:
        ear.take(message)
        return ear.heads >= set(streams)

    def alive(message: Message) -> bool:
        ear.take(message)
        return ear.live

    topics = [topic(settings.root, stream) for topic in (live_topic, head_topic) for stream in streams]
    visit.listen(topics, all_heads, HEADS_S)
    known = facts["streams"] if facts else {}
    for stream in streams:
        if stream in ear.broken:
            said = f"{stream}: what HQ sends cannot be read by this version: {ear.broken[stream][:200]}."
            yield Check("head", Finding(FAIL, said, "at HQ: hq status; are both of one version?"))
        else:
            has_rows = bool(known.get(str(stream), {}).get("epoch"))
            yield Check("head", diagnosis.head(str(stream), heard=stream in ear.heads, has_rows=has_rows))
    if not ear.live:
        visit.listen((), alive, HEARTBEAT_S)
    yield Check("hq", diagnosis.hq(None if ear.live else HEARTBEAT_S))
    if ear.skew_ms is not None and (facts is None or facts["clock"]["verdict"] == UNCONFIRMED):
        yield Check("clock", advice.clock({"skew_seconds": ear.skew_ms / 1000, "verdict": None}))


def _owned(path: Path) -> Owned | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return Owned(str(path), found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode), _user_name(found.st_uid))


def _user(uid: int) -> User:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return User(uid, str(uid), ())
    groups = {entry.pw_gid} | {g.gr_gid for g in grp.getgrall() if entry.pw_name in g.gr_mem}
    return User(uid, entry.pw_name, groups)


def _user_name(uid: int) -> str:
    return _user(uid).name


def _free_bytes(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize
