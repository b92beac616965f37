"""What `storenode doctor` finds: it judges files, the broker's answers, versions. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from storenode.core.advice import FAIL, OK, WARN, Finding
from storenode.core.states import NEEDED

SQLITE_MIN = (3, 38, 0)
WAL_RESET_FIXED = (3, 51, 3)
ROOT_UID = 0
START = "systemctl start storenode"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check looked at, and what it found."""

    name: str
    finding: Finding


@dataclass(frozen=True, slots=True)
class Owned:
    """Who may do what with a file or directory. `mode`: permission bits."""

    path: str
    uid: int
    gid: int
    mode: int
    owner: str

    def writable_by(self, who: User) -> bool:
        if who.uid in (self.uid, ROOT_UID):
            return who.uid == ROOT_UID or bool(self.mode & 0o200)
        return bool(self.mode & (0o020 if self.gid in who.gids else 0o002))


@dataclass(frozen=True, slots=True)
class User:
    """A user of the machine: the one that the daemon runs as."""

    uid: int
    name: str
    gids: Collection[int]


def directory(found: Owned, daemon: User) -> Finding:
    """Judge the directory of the replica."""
    if not found.writable_by(daemon):
        return Finding(
            FAIL,
            f"{daemon.name}, whom the daemon runs as, may not write in {found.path}.",
            f"chown {daemon.name}: {found.path}",
        )
    if found.mode & 0o022:
        return Finding(
            WARN,
            f"Others may write in {found.path}: a till that crashes there could lock the daemon out.",
            f"chmod 2750 {found.path}",
        )
    return Finding(OK, f"{found.path} is {daemon.name}'s to write.")


def files(what: str, found: Sequence[Owned], daemon: User) -> Finding:
    """Judge the files of a database, the database itself first; `what`: its name in a sentence."""
    for each in found:
        if not each.writable_by(daemon):
            return Finding(
                FAIL,
                f"{each.path} belongs to {each.owner}: the daemon, as {daemon.name}, cannot write it.",
                f"systemctl stop storenode; chown {daemon.name}: {' '.join(f.path for f in found)}; {START}",
            )
    if not found[0].mode & 0o040:
        return Finding(
            WARN, f"Only {found[0].owner} can read {what}: tills in its group cannot.", f"chmod g+r {found[0].path}*"
        )
    if not {f"{found[0].path}-wal", f"{found[0].path}-shm"} <= {each.path for each in found}:
        return Finding(
            WARN,
            f"{found[0].path} is without its -wal or -shm: a user who may not write beside it cannot open it.",
            START,
        )
    return Finding(OK, f"The files of {what} are {found[0].owner}'s, and its group can read them.")


def sqlite(version: tuple[int, ...], *, fts5: bool) -> Finding:
    """Judge the SQLite library that this Python uses."""
    name = ".".join(map(str, version))
    if version < SQLITE_MIN or not fts5:
        lack = "" if fts5 else ", without FTS5"
        return Finding(
            FAIL, f"SQLite {name}{lack} is too old for the replica, which needs 3.38 with FTS5.", "use a newer Python"
        )
    if version < WAL_RESET_FIXED:
        return Finding(
            OK, f"SQLite {name} is fine; its WAL-reset bug (fixed in 3.51.3) needs two that checkpoint, here it is one."
        )
    return Finding(OK, f"SQLite {name} is fine.")


def head(stream: str, *, heard: bool, has_rows: bool) -> Finding:
    """Judge whether HQ's head of a stream is on the broker. That the broker grants the subscription proves nothing."""
    if heard:
        return Finding(OK, f"{stream}: HQ's head is on the broker.")
    if not stream.endswith("/all"):
        return Finding(OK, f"{stream}: no head on the broker; HQ has published nothing of its own for this scope.")
    if stream not in NEEDED:
        return Finding(WARN, f"{stream}: no head on the broker; HQ does not declare it yet.", "at HQ: hq status")
    so = "the store can sell with what is here, but it cannot catch up" if has_rows else "this store cannot be filled"
    return Finding(
        FAIL,
        f"{stream}: no head on the broker, or this user may not read it: {so}.",
        "at HQ: hq status (is hq run up, is this its broker and root?); then the broker's ACL",
    )


def hq(silent_s: float | None) -> Finding:
    """Judge whether HQ speaks. `silent_s`: how long the doctor waited in vain; None: HQ was heard."""
    if silent_s is None:
        return Finding(OK, "HQ is heard.")
    return Finding(
        WARN,
        f"HQ said nothing for {silent_s:g} s: changes made there do not arrive; what is on the broker does.",
        "at HQ: hq status",
    )
