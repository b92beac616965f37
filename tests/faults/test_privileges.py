"""What root types beside a service's files: it is the service's doing, and follows no link that the service planted."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.faults.service import ROOT, SERVICE, Site, build, give, interpreter, look

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
    pytest.mark.skipif(
        os.geteuid() == 0 and interpreter() is None, reason=f"user {SERVICE} can start no Python with our packages"
    ),
]

COMMANDS = {
    "storenode": (
        "override 1 1.49 --until {until} --reason ripe",
        "override 1 --withdraw",
        "emit sale.total 1",
        "rebuild",
        "outbox --forget-refused",
        "backup {private}",
        "backup {private}/new",
        "restore {private}/replica-copy.db",
        "run",
        "status",
        "verify",
        "price 1",
        "jobs",
        "doctor",
    ),
    "hq": (
        "init",
        "publish price sku=1 amount=2.99 currency=EUR",
        "import price {private}/feed.csv",
        "export price {private}/made.csv",
        "backup {private}/made.db",
        "restore {private}/hq-copy.db",
        "run",
        "status",
        "verify",
        "log",
        "inbox",
        "stores",
        "doctor",
    ),
}
LINES = [f"{program} {line}" for program, lines in COMMANDS.items() for line in lines]
READING = (" price 1", " jobs", " log", " inbox", " stores")
"""They open what `status` opens."""

DATABASES = ("replica.db", "outbox.db", "hq.db", "hq.inbox.db", "hq.published.db", "replica.db.price-changes")
PLANTED = {
    "beside": [
        *(f"{name}{suffix}" for name in DATABASES for suffix in (".lock", ".rebuild", ".rebuild.part", ".part")),
        *(f".{name}.restoring{suffix}" for name in DATABASES for suffix in ("", "-wal", "-shm", "-journal")),
        "replica.db.spool",
        "replica.db.price-changes",
        "hq.inbox.db",
        "hq.published.db",
    ],
    "companions": [f"{name}{suffix}" for name in DATABASES for suffix in ("-wal", "-shm", "-journal")],
    "databases": [*DATABASES],
}


@pytest.fixture(scope="module")
def template() -> Iterator[Site]:
    base = Path(mkdtemp(prefix="service-"))
    yield build(base)  # given to the service in each copy
    shutil.rmtree(base)


@pytest.fixture
def site(template: Site) -> Iterator[Site]:
    """A fresh copy where every user can look: pytest's own directories are closed to them."""
    base = Path(mkdtemp(prefix="service-"))
    base.chmod(0o755)
    shutil.copytree(template.base, base, dirs_exist_ok=True)
    found = Site(base)
    give(found)
    yield found
    shutil.rmtree(base)


def plant(site: Site, names: list[str], *, dangling: bool) -> None:
    """Links under these names to files of root's: copies of what is there, or some text, or nothing at all."""
    for name in names:
        place = (site.hq if "hq" in name else site.store) / name
        target = site.elsewhere / name.lstrip(".")
        if not dangling:
            target.write_bytes(place.read_bytes() if place.is_file() else b"root's own\n")
            target.chmod(0o600)
        place.unlink(missing_ok=True)
        place.symlink_to(target)
        os.lchown(place, SERVICE, SERVICE)


def test_all_that_root_types_there_is_done_as_the_service(site: Site) -> None:
    """And what root named, where the service may neither read nor write, is read and written."""
    for line in LINES:
        done = site.type(line)
        codes = (0,) if line.split()[1] not in ("status", "verify", "doctor") else (0, 1, 2, 3)
        assert done.returncode in codes, f"{line}: {done.stdout.decode()}"
        found = look(site.store, site.hq)
        assert {facts[1:3] for facts in found.values()} == {(SERVICE, SERVICE)}, line
        left = [name for name in found if any(mark in name for mark in (".named-", ".delivery-", ".part"))]
        assert left == [], line
    made = [path for path in site.private.rglob("*") if path.name.startswith("replica-s-") or path.name == "made.db"]
    assert sorted(str(path.parent.relative_to(site.private)) for path in made) == [".", ".", "new"]
    for path in made:
        assert (path.stat().st_uid, path.stat().st_mode & 0o077) == (0, 0o040)
    assert (site.private / "made.csv").read_bytes().startswith(b"sku,kind,currency,amount,")
    assert b"exists" in (again := site.type("hq backup {private}/made.db")).stdout
    assert again.returncode == 1


def test_an_outbox_and_a_master_that_root_makes_are_the_services(site: Site) -> None:
    """Root's first `storenode emit` or `hq init` must not lock the daemon out."""
    for path in (*site.store.glob("outbox.db*"), *site.hq.iterdir()):
        path.unlink()
    for line in ("storenode emit sale.total 1", "hq init"):
        assert site.type(line).returncode == 0
    found = look(site.store, site.hq)
    assert {str(site.store / "outbox.db"), str(site.hq / "hq.db")} <= found.keys()
    assert {facts[1:3] for facts in found.values()} == {(SERVICE, SERVICE)}


@pytest.mark.parametrize("dangling", [False, True], ids=["to a file", "to nothing"])
@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("line", [line for line in LINES if "/new" not in line and not line.endswith(READING)])
def test_no_command_follows_a_planted_link_as_root(site: Site, line: str, kind: str, dangling: bool) -> None:
    """`storenode restore` filled what `.replica.db.restoring` led to, and gave it to the service's user."""
    plant(site, PLANTED[kind], dangling=dangling)
    before = look(site.elsewhere)
    done = site.type(line)
    assert look(site.elsewhere) == before, done.stdout.decode()
    assert b"Traceback" not in done.stdout


def test_a_directory_that_the_service_replaced_by_a_link_is_still_the_services(site: Site) -> None:
    """To a directory of root's, where nothing would be dropped, and root would make files."""
    for program in ("store", "hq"):
        (link := site.base / program / "sub").symlink_to(site.elsewhere)
        os.lchown(link, SERVICE, SERVICE)
    for line in ("storenode emit sale.total 1", "storenode restore {private}/replica-copy.db", "hq init"):
        done = site.type(line, STORENODE_DB=str(site.store / "sub/replica.db"), HQ_DB=str(site.hq / "sub/hq.db"))
        assert done.returncode == 1, done.stdout
        assert list(site.elsewhere.iterdir()) == []


def test_a_link_of_the_administrators_leads_to_the_real_directory(site: Site) -> None:
    (link := site.base / "link").symlink_to("store/../store")
    assert site.type("storenode emit sale.total 1", STORENODE_DB=str(link / "replica.db")).returncode == 0
    assert {facts[1] for facts in look(site.store).values()} == {SERVICE}


def test_the_outboxs_directory_counts_when_the_replicas_is_roots(site: Site) -> None:
    (own := site.base / "own").mkdir()
    os.chown(own, SERVICE, SERVICE)
    (own / "outbox.db.lock").symlink_to(site.elsewhere / "made")
    os.chown(site.store, 0, 0)
    site.type("storenode emit sale.total 1", STORENODE_OUTBOX=str(own / "outbox.db"))
    assert {(path.name, path.lstat().st_uid) for path in own.iterdir()} >= {("outbox.db", SERVICE)}
    assert list(site.elsewhere.iterdir()) == []


WHO = """
import os, sys
from pathlib import Path
from storelink.host.privileges import drop_to_owner_of
drop_to_owner_of(Path(sys.argv[1]))
print(os.getresuid(), os.getresgid(), sorted(os.getgroups()))
"""


@pytest.mark.parametrize("uid", [0, SERVICE, pwd.getpwnam("nobody").pw_uid])
def test_every_identity_and_group_is_the_owners(site: Site, uid: int) -> None:
    found = interpreter()
    assert found is not None
    os.chown(site.store, uid, SERVICE)
    command = [found[0], "-c", WHO, str(site.store)]
    done = subprocess.run(
        command, env=found[1], cwd=ROOT, extra_groups=[0, 4], capture_output=True, text=True, check=True
    )
    gid, groups = {0: (0, [0, 4]), SERVICE: (SERVICE, [])}.get(uid, (0, []))
    if uid not in (0, SERVICE):
        account = pwd.getpwuid(uid)
        gid, groups = account.pw_gid, sorted(os.getgrouplist(account.pw_name, account.pw_gid))
    assert done.stdout.strip() == f"{(uid,) * 3} {(gid,) * 3} {groups}"


def test_a_program_that_the_owner_cannot_read_is_refused_before_anything_is_touched(site: Site) -> None:
    """As one that root installed below its own home: half of its modules would be missing."""
    shutil.copytree(ROOT / "storelink", site.private / "storelink")
    command = [sys.executable, "-c", WHO, str(site.store)]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(site.private)}, cwd="/", capture_output=True, text=True, check=False
    )
    assert "cannot read" in done.stderr
