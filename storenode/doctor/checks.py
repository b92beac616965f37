"""`storenode doctor`: checks everything that a store needs, one thing after the other, and changes nothing.

The doctor opens no database that opening would change: SQLite makes -wal and -shm where they are missing, for root also
in a directory of another user. What the results mean is in `storenode.doctor.findings` and `storenode.core.advice`.
"""

from __future__ import annotations

import grp
import os
import pwd
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from storenode.config import Examined, Settings
from storenode.core import advice
from storenode.core.advice import FAIL, OK, WARN, Finding
from storenode.core.clock_rules import UNCONFIRMED
from storenode.doctor import findings
from storenode.doctor.broker_probe import probe_broker
from storenode.doctor.findings import START, CheckResult, Owned, User
from storenode.errors import StorenodeError
from storenode.outbox.status import outbox_status
from storenode.replica import schema
from storenode.replica.file import IDENT_AT, MAGIC
from storenode.replica.status import beside_document, daemon_alive, status_document

SYSTEM_CONFIG = Path("/etc/storenode/storenode.toml")
VERSION_AT = 60
"""Where SQLite's header has the user version, big-endian, 4 bytes."""


def checks(found: Examined) -> Iterator[CheckResult]:
    """Check everything; what cannot be looked at is reported and passed over. Takes 15 s at most."""
    names = set()
    for result in _checks(found):
        names.add(result.name)
        yield result
    if "clock" not in names:
        yield CheckResult("clock", advice.clock({"skew_seconds": None}))


def _checks(found: Examined) -> Iterator[CheckResult]:
    settings = found.settings
    yield from _configuration(found)
    yield CheckResult("sqlite", _sqlite())
    status: dict[str, Any] | None = None
    if "db" in found.broken:
        yield CheckResult("replica", Finding(WARN, "The replica was not looked at: the setting db is wrong."))
    else:
        yield from _guarded("directory", lambda: _places(settings))
        status = _status(settings)
        yield from _guarded("replica", lambda: _replica(settings, status))
    if found.broken & {"broker", "root", "scopes"}:
        yield CheckResult("broker", Finding(WARN, "The broker was not probed: broker, root or scopes is wrong."))
        return
    yield from probe_broker(settings, status)


def _configuration(found: Examined) -> Iterator[CheckResult]:
    for mistake in found.mistakes:
        yield CheckResult("configuration", Finding(FAIL, f"{mistake}.", "correct it, then systemctl restart storenode"))
    if found.mistakes:
        return
    settings, path = found.settings, found.path
    if path is None and SYSTEM_CONFIG.exists():
        yield CheckResult(
            "configuration",
            Finding(
                WARN,
                f"No configuration was named, so this is about the defaults and not about {SYSTEM_CONFIG}.",
                f"storenode --config {SYSTEM_CONFIG} doctor",
            ),
        )
        return
    if path is not None and settings.broker.password is not None:
        with suppress(OSError):
            if path.stat().st_mode & 0o004:
                found_open = Finding(WARN, f"Anybody can read the password in {path}.", f"chmod o-r {path}")
                yield CheckResult("configuration", found_open)
                return
    whence = f"{path} is" if path else "The settings are"
    said = f"{whence} sound: store {settings.store_id}, scopes {','.join(settings.scopes)}, broker {settings.broker}."
    yield CheckResult("configuration", Finding(OK, said))


def _sqlite() -> Finding:
    with closing(sqlite3.connect(":memory:")) as db:
        options = {row[0] for row in db.execute("PRAGMA compile_options")}
    return findings.sqlite(sqlite3.sqlite_version_info, fts5="ENABLE_FTS5" in options)


def _guarded(name: str, look: Callable[[], Iterator[CheckResult]]) -> Iterator[CheckResult]:
    """Report what this user may not look at, and go on."""
    try:
        yield from look()
    except OSError as error:
        said = f"{error.filename or 'A file'} may not be looked at by this user: {error.strerror}."
        yield CheckResult(name, Finding(WARN, said, "sudo storenode doctor, with the same settings"))


def _places(settings: Settings) -> Iterator[CheckResult]:
    """Check the owners of directory and files, and what the daemon and readers may do with them."""
    home = _owned(settings.db.parent)
    if home is None:
        said = f"There is no directory {settings.db.parent}; the daemon makes it if it may."
        yield CheckResult("directory", Finding(WARN, said, START))
        return
    replica = _owned(settings.db)
    daemon = _user(home.uid if home.uid or replica is None else replica.uid)
    yield CheckResult("directory", findings.directory(home, daemon))
    yield CheckResult("disk", advice.disk(_free_bytes(settings.db.parent)))
    if replica is not None:
        yield CheckResult("permissions", findings.files("the replica", _beside(settings.db), daemon))
    outbox = settings.outbox_path
    if _owned(outbox) is not None:
        yield CheckResult("permissions", findings.files("the outbox", _beside(outbox), daemon))


def _beside(db: Path) -> list[Owned]:
    """A database, and what SQLite and the daemon keep beside it, as far as it exists."""
    return [each for suffix in ("", "-wal", "-shm", ".lock", ".spool") if (each := _owned(Path(f"{db}{suffix}")))]


def _status(settings: Settings) -> dict[str, Any] | None:
    """The status document, and what the screen knows besides; None where the replica cannot be opened unchanged."""
    try:
        if not _may_open(settings.db):
            return None
        outbox = settings.outbox_path
        found = status_document(settings.db, settings.registry) | beside_document(settings.db)
        known = outbox_status(outbox) if not outbox.exists() or _may_open(outbox) else None
    except (OSError, StorenodeError):
        return None
    return found | {"outbox": known}


def _may_open(db: Path) -> bool:
    """Whether opening a database read-only makes no file."""
    return all(os.access(f"{db}{suffix}", os.R_OK) for suffix in ("", "-wal", "-shm"))


def _replica(settings: Settings, status: dict[str, Any] | None) -> Iterator[CheckResult]:
    """The replica and the daemon that keeps it."""
    alive = daemon_alive(settings.db)
    if not settings.db.exists():
        yield CheckResult("daemon", advice.daemon(None, running=alive, seen_s=0))
        said = f"There is no replica at {settings.db}: there is nothing to sell by yet."
        yield CheckResult("replica", Finding(FAIL, said, "" if alive else START))
        return
    with settings.db.open("rb") as file:
        header = file.read(100)
    if (foreign := _foreign(header, settings.db)) is not None:
        yield CheckResult("replica", foreign)
    if status is None:
        yield CheckResult("daemon", advice.daemon(None, running=alive, seen_s=0))
        said = "What the replica holds was not looked at: to open it would change it."
        yield CheckResult("replica", Finding(WARN, said, START))
        return
    daemon = advice.daemon(status["pid"], running=alive, seen_s=status["seen_seconds"])
    if daemon.verdict == OK and not status["connected"]:
        daemon = Finding(WARN, "The daemon is at work, but its line to the broker is down.", advice.LINE)
    yield CheckResult("daemon", daemon)
    for name, s in status["streams"].items():
        rows = advice.count(s["rows"], "row", "rows")
        sound = Finding(OK, f"{name}: {s['state']}, {rows}, position {s['position']}.")
        yield CheckResult("replica", advice.stream(name, s, connected=status["connected"]) or sound)
    for finding in (*advice.read_models(status["read_models"]), *advice.log(status["database"])):
        yield CheckResult("replica", finding)
    outbox = status["outbox"]
    if outbox is not None:
        yield CheckResult("outbox", advice.outbox(outbox))
    if status["clock"]["verdict"] != UNCONFIRMED:
        yield CheckResult("clock", advice.clock(status["clock"]))


def _foreign(header: bytes, path: Path) -> Finding | None:
    ident = int.from_bytes(header[IDENT_AT : IDENT_AT + 4], "big")
    version = int.from_bytes(header[VERSION_AT : VERSION_AT + 4], "big")
    if not header.startswith(MAGIC) or ident not in (schema.APPLICATION_ID, 0):
        return Finding(FAIL, f"{path} is not a replica.", "check db; or move the file away, then " + START)
    if version > schema.VERSION:
        return Finding(FAIL, f"{path} is of a newer storenode.", "install that version again")
    return None


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
