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
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from storenode.config import Examined, Settings
from storenode.core import advice
from storenode.core.advice import FAIL, OK, WARN, Finding
from storenode.core.clock_rules import UNCONFIRMED
from storenode.doctor import verdicts
from storenode.doctor.broker_probe import visited
from storenode.doctor.verdicts import START, Check, Owned, User
from storenode.errors import StorenodeError
from storenode.replica import schema
from storenode.replica.file import IDENT_AT, MAGIC
from storenode.replica.status import beside_document, daemon_alive, status_document

SYSTEM_CONFIG = Path("/etc/storenode/storenode.toml")
VERSION_AT = 60
"""Where SQLite's header has the user version, big-endian, 4 bytes."""


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
    yield from visited(settings, facts)


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
                yield Check("configuration", found_open)
                return
    whence = f"{path} is" if path else "The settings are"
    said = f"{whence} sound: store {settings.store_id}, scopes {','.join(settings.scopes)}, broker {settings.broker}."
    yield Check("configuration", Finding(OK, said))


def _sqlite() -> Finding:
    with closing(sqlite3.connect(":memory:")) as db:
        options = {row[0] for row in db.execute("PRAGMA compile_options")}
    return verdicts.sqlite(sqlite3.sqlite_version_info, fts5="ENABLE_FTS5" in options)


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
    yield Check("directory", verdicts.directory(home, daemon))
    yield Check("disk", advice.disk(_free_bytes(settings.db.parent)))
    if replica is not None:
        yield Check("permissions", verdicts.files("the replica", _beside(settings.db), daemon))
    outbox = settings.outbox_path
    if _owned(outbox) is not None:
        yield Check("permissions", verdicts.files("the outbox", _beside(outbox), daemon))


def _beside(db: Path) -> list[Owned]:
    """A database and what SQLite and the daemon keep beside it, as far as it is there."""
    return [each for suffix in ("", "-wal", "-shm", ".lock", ".spool") if (each := _owned(Path(f"{db}{suffix}")))]


def _facts(settings: Settings, outbox_status: Callable[[Path], dict[str, Any]]) -> dict[str, Any] | None:
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


def _replica(settings: Settings, facts: dict[str, Any] | None) -> Iterator[Check]:
    """The replica and the daemon that keeps it."""
    alive = daemon_alive(settings.db)
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
    for finding in (*advice.read_models(facts["read_models"]), *advice.log(facts["database"])):
        yield Check("replica", finding)
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
