"""What the doctor finds in files, versions and heads: tables."""

from __future__ import annotations

import pytest

from storenode.doctor import findings
from storenode.doctor.findings import Owned, User

DAEMON = User(100, "storenode", {100})


def owned(path: str = "/d/r.db", *, uid: int = 100, gid: int = 100, mode: int = 0o640) -> Owned:
    return Owned(path, uid, gid, mode, {0: "root", 100: "storenode", 200: "till"}[uid])


def whole(**main: int) -> list[Owned]:
    return [owned(**main), owned("/d/r.db-wal"), owned("/d/r.db-shm")]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "verdict", "said"),
    [
        (owned("/d", mode=0o750), "ok", "/d is storenode's to write."),
        (owned("/d", uid=0, gid=0, mode=0o755), "fail", "storenode, whom the daemon runs as, may not write in /d."),
        (owned("/d", mode=0o550), "fail", "storenode, whom the daemon runs as, may not write in /d."),
        (owned("/d", mode=0o770), "warn", "Others may write in /d: a till that crashes there could lock the daemon"),
        (owned("/d", uid=0, mode=0o770), "warn", "Others may write in /d"),
    ],
)
def test_the_directory_is_the_daemons_and_nobody_elses(found: Owned, verdict: str, said: str) -> None:
    finding = findings.directory(found, DAEMON)
    assert (finding.verdict, finding.sentence.startswith(said)) == (verdict, True), finding


@pytest.mark.parametrize(
    ("found", "verdict", "said"),
    [
        (whole(), "ok", "The files of the replica are storenode's, and its group can read them."),
        (whole(mode=0o600), "warn", "Only storenode can read the replica: tills in its group cannot."),
        ([*whole(), owned("/d/r.db.lock", uid=0)], "fail", "/d/r.db.lock belongs to root: the daemon, as storenode,"),
        (
            [owned(), owned("/d/r.db-wal"), owned("/d/r.db-shm", uid=200, gid=200)],
            "fail",
            "/d/r.db-shm belongs to till: the daemon, as storenode, cannot write it.",
        ),
        ([owned(), owned("/d/r.db-wal")], "warn", "/d/r.db is without its -wal or -shm"),
        ([owned()], "warn", "/d/r.db is without its -wal or -shm"),
        ([*whole(), owned("/d/r.db.spool", uid=0, mode=0o770)], "ok", "The files"),
    ],
)
def test_files_that_the_daemon_cannot_write_or_tills_cannot_read_are_found(
    found: list[Owned], verdict: str, said: str
) -> None:
    finding = findings.files("the replica", found, DAEMON)
    assert (finding.verdict, finding.sentence.startswith(said)) == (verdict, True), finding


def test_root_may_write_everything() -> None:
    root = User(0, "root", {0})
    assert findings.files("the replica", whole(), root).verdict == "ok"
    assert findings.directory(owned("/d", mode=0o750), root).verdict == "ok"


@pytest.mark.parametrize(
    ("version", "fts5", "verdict", "said"),
    [
        ((3, 40, 1), True, "ok", "WAL-reset bug (fixed in 3.51.3)"),
        ((3, 51, 3), True, "ok", "SQLite 3.51.3 is fine."),
        ((3, 37, 2), True, "fail", "too old"),
        ((3, 45, 0), False, "fail", "without FTS5"),
    ],
)
def test_known_bugs_of_sqlite_are_named(version: tuple[int, ...], fts5: bool, verdict: str, said: str) -> None:
    finding = findings.sqlite(version, fts5=fts5)
    assert (finding.verdict, said in finding.sentence) == (verdict, True), finding


def test_a_narrow_scope_without_a_head_is_nothing_to_worry_about() -> None:
    assert findings.head("price/zone-west", heard=False, has_rows=False).verdict == "ok"
    assert findings.head("price/all", heard=True, has_rows=False).verdict == "ok"
    assert findings.head("price/all", heard=False, has_rows=False).verdict == "fail"
