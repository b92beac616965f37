"""The directories of an installed store and HQ, of a user without an account, and what root types there."""

from __future__ import annotations

import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from hq.core.changes import Change
from hq.master.backup import back_up
from hq.master.store import Master
from storelink.contract.contexts import BUILT_IN, PRICE
from storelink.contract.rows import to_hex, total
from storelink.contract.streams import Stream
from storelink.contract.times import rfc3339
from storenode.jobs.backup import make
from storenode.outbox.store import Outbox
from storenode.replica.writer import Replica

ROOT = Path(__file__).parents[2]
SERVICE = 12_345
TIMEOUT_S = 60
UNTIL = rfc3339((int(time.time()) + 86_400) * 1000)
STARTED = (b'"event": "store.started"', b'"event": "publisher.started"')
"""What a daemon logs once it is at work; it is stopped then."""


@cache
def interpreter() -> tuple[str, Mapping[str, str]] | None:
    """A Python that the service's user can start, and its environment; None if there is none."""
    environ = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    modules = {"PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}"}
    version = f"python3.{sys.version_info.minor}"
    for python, more in ((sys.executable, {}), (shutil.which(version, path="/usr/local/bin:/usr/bin"), modules)):
        command = [python or "", "-c", "import sqlite3, hq.cli, storenode.cli"]
        try:
            done = subprocess.run(
                command, user=SERVICE, group=SERVICE, extra_groups=[], env=environ | more, cwd="/", check=False
            )
        except OSError:
            continue
        if done.returncode == 0:
            return str(python), environ | more
    return None


@dataclass(frozen=True)
class Site:
    """`store` and `hq` are the service's, 0750; `private` is root's and 0700; `elsewhere` is root's and 0755."""

    base: Path

    @property
    def store(self) -> Path:
        return self.base / "store"

    @property
    def hq(self) -> Path:
        return self.base / "hq"

    @property
    def private(self) -> Path:
        return self.base / "private"

    @property
    def elsewhere(self) -> Path:
        return self.base / "elsewhere"

    def words(self, line: str) -> list[str]:
        return [word.format(private=self.private, until=UNTIL) for word in line.split()]

    def type(
        self, line: str, cwd: Path | None = None, python: Sequence[str] = (), **environ: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Type a command as whoever runs the tests, without a shell; a daemon is stopped once it is at work."""
        found = interpreter() if not python else (python[0], {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})
        assert found is not None
        program, *rest = self.words(line)
        script = str(Path(sysconfig.get_path("scripts"), program))
        settings = {
            "STORENODE_DB": str(self.store / "replica.db"),
            "STORENODE_STORE_ID": "s",
            "STORENODE_BROKER": "mqtt://user:broker-secret@127.0.0.1:1",
            "HQ_DB": str(self.hq / "hq.db"),
            "HQ_BROKER": "mqtt://user:broker-secret@127.0.0.1:1",
        }
        return ended([found[0], *python[1:], script, *rest], {**found[1], **settings, **environ}, cwd or self.base)


def ended(command: list[str], environ: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end; one that says that it started, a daemon, is asked to stop."""
    process = subprocess.Popen(
        command, env=environ, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    said, asked, limit_s = b"", False, time.monotonic() + TIMEOUT_S
    try:
        while select.select([process.stdout], [], [], max(limit_s - time.monotonic(), 0))[0]:
            piece = os.read(process.stdout.fileno(), 65_536)
            if not piece:
                break
            said += piece
            if not asked and any(mark in said for mark in STARTED):
                process.send_signal(signal.SIGTERM)
                asked = True
        process.wait(max(limit_s - time.monotonic(), 0))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return subprocess.CompletedProcess(command, process.returncode, said, b"")


def build(base: Path) -> Site:
    """Both directories, filled, and copies in `private` that only root can read."""
    site = Site(base)
    base.chmod(0o755)
    for directory, mode in ((site.store, 0o750), (site.hq, 0o750), (site.private, 0o700), (site.elsewhere, 0o755)):
        directory.mkdir()
        directory.chmod(mode)
    price = Stream(PRICE, "all")
    row = (1, "1", "regular", "EUR", "[[1700000000,null,199]]")
    replica = Replica.open(site.store / "replica.db", ("all",), BUILT_IN)
    replica.apply(
        price,
        epoch="e",
        position=1,
        digest=to_hex(total([row])),
        head_seq=1,
        batches=[([row], [])],
        replace=False,
        wall_ms=int(time.time() * 1000),
    )
    replica.connection.close()
    with Outbox(site.store / "outbox.db"):
        pass
    made = make(site.store / "replica.db", BUILT_IN, site.private, "s", 7, datetime.now(UTC))
    made.path.rename(site.private / "replica-copy.db")
    Master.create(site.hq / "hq.db", BUILT_IN, 1_767_225_600_000)
    with Master.open(site.hq / "hq.db", BUILT_IN) as master:
        master.commit(price, [Change(("1", "regular"), ("EUR", "[[0,null,199]]"))], 1_767_225_600_000)
    back_up(site.hq / "hq.db", site.private / "hq-copy.db", BUILT_IN)
    (site.private / "feed.csv").write_text("sku,amount,currency\n1,2.49,EUR\n")
    for path in site.private.iterdir():
        path.chmod(0o600)
    return site


def give(site: Site) -> None:
    """Have the service's directories be the service's, and all in them."""
    if os.geteuid() == 0:
        for directory in (site.store, site.hq):
            for path in (directory, *directory.rglob("*")):
                os.lchown(path, SERVICE, SERVICE)


def look(*places: Path) -> dict[str, tuple[int, int, int, bytes | str]]:
    """Everything below these: mode, user, group, and content or where it leads."""
    found: dict[str, tuple[int, int, int, bytes | str]] = {}
    for place in places:
        for path in (place, *place.rglob("*")):
            facts = path.lstat()
            content: bytes | str = b""
            if stat.S_ISREG(facts.st_mode):
                content = path.read_bytes()
            elif stat.S_ISLNK(facts.st_mode):
                content = str(path.readlink())
            found[str(path)] = (facts.st_mode, facts.st_uid, facts.st_gid, content)
    return found
