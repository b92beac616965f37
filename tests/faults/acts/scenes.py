"""The scenes: an act, the files that it begins with, what must hold after any fault in it, and how it goes on."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.strace import KILLED_AT, Point
from tests.faults.acts.precious import COPIED, ENTRIES
from tests.faults.acts.replicas import stories
from tests.faults.acts.stage import Played, Stage
from tests.faults.acts.stories import NEW_EPOCH, OLD_EPOCH
from tests.oracle import files as oracle
from tests.oracle.verdicts import Verdict

Said = list[dict[str, Any]]
Record = Callable[[str, object], None]
"""pytest's record_property."""

TOLD = [*stories(OLD_EPOCH), *stories(NEW_EPOCH)]


@dataclass(frozen=True)
class Scene:
    """`judge` looks at the files after a fault, `final` at what they are once the act was played again to its end."""

    name: str
    act: str
    judge: Callable[[Path, Said], Verdict]
    final: Callable[[Path, Said], Verdict]
    begins: str = "empty"
    parameters: dict[str, Any] = field(default_factory=dict)
    again: dict[str, Any] = field(default_factory=dict)

    def play(self, stage: Stage, directory: Path, **options: Any) -> Played:
        return stage.play(self.act, directory, **(self.parameters | options))

    def go_on(self, stage: Stage, directory: Path, **options: Any) -> Played:
        """Play it again, as the processes are started again after a fault."""
        return stage.play(self.act, directory, **(self.parameters | self.again | options))


def _replica(directory: Path, said: Said) -> Verdict:
    return oracle.judge_replica(directory / "replica.db", TOLD, said)


def _settled(directory: Path, said: Said) -> Verdict:
    verdict = _replica(directory, said)
    verdict.wrong += oracle.judge_search(directory / "replica.db").wrong
    return verdict


def _upstream(directory: Path, said: Said) -> Verdict:
    return oracle.judge_upstream(directory, [s["acked"] for s in said if "acked" in s])


def _arrived(directory: Path, said: Said) -> Verdict:
    return oracle.judge_upstream(directory, [s["acked"] for s in said if "acked" in s], arrived=True)


def _master(directory: Path, said: Said) -> Verdict:
    return oracle.judge_master(directory / "hq.db", TOLD[1], [s["committed"] for s in said if "committed" in s])


def _master_whole(directory: Path, said: Said) -> Verdict:
    return oracle.judge_master(directory / "hq.db", TOLD[1], [TOLD[1].ends[-1]])


def _copy_or_none(directory: Path, said: Said) -> Verdict:
    """What stands under the copy's name is whole; the master is as it was."""
    if (directory / "second.db").exists():
        return _copied(directory, said)
    return _master_whole(directory, said)


def _copied(directory: Path, said: Said) -> Verdict:
    verdict, copy = _master_whole(directory, said), directory / "second.db"
    if not copy.exists():
        verdict.wrong.append("there is no copy")
        return verdict
    found = oracle.judge_master(copy, TOLD[1], [TOLD[1].ends[-1]])
    return Verdict(verdict.wrong + found.wrong, verdict.lost + found.lost)


def _restored(directory: Path, said: Said) -> Verdict:
    verdict = _master(directory, said)
    with oracle.reading(directory / "hq.db") as db:
        assert db is not None
        ((epoch, seq),) = db.execute("SELECT epoch, head_seq FROM streams WHERE stream = 'price/all'").fetchall()
    if seq != TOLD[1].ends[COPIED] or epoch.endswith("-00000000"):
        verdict.wrong.append(f"at {seq} in {epoch}, it is not restored")
    return verdict


def _upgraded(directory: Path, said: Said) -> Verdict:
    acked = [[1, number] for number in range(ENTRIES)] + [s["acked"] for s in said if "acked" in s]
    verdict, replica = oracle.judge_upstream(directory, acked), _replica(directory, said)
    # An entry that was not acknowledged may be there; typed again, it is a second one.
    return Verdict(verdict.wrong + replica.wrong, verdict.lost + replica.lost, 0)


def _upgraded_whole(directory: Path, said: Said) -> Verdict:
    verdict = _upgraded(directory, said)
    with oracle.reading(directory / "replica.db") as db, oracle.reading(directory / "outbox.db") as outbox:
        assert db is not None
        assert outbox is not None
        tables = [db.execute("SELECT count(*) FROM quarantine"), outbox.execute("SELECT count(*) FROM overrides")]
    verdict.wrong += [] if len(tables) == 2 else ["not upgraded"]
    return verdict


BOOTSTRAP = Scene("bootstrap", "bootstrap", _replica, _settled, parameters={"epoch": OLD_EPOCH})
LIVE = Scene("live batches", "live", _replica, _settled, "filled", {"epoch": OLD_EPOCH})
REBUILD = Scene("rebuild", "bootstrap", _replica, _settled, "filled", {"epoch": NEW_EPOCH})
CHECKPOINT = Scene("checkpoint", "checkpoint", _replica, _settled, "filled")
REPLACING_DAMAGED = Scene("replacing a damaged replica", "replacing_damaged", _replica, _settled, "half checkpointed")
UPSTREAM = Scene("upstream", "upstream", _upstream, _arrived, parameters={"life": 1}, again={"life": 2})
MASTER = Scene("master", "master", _master, _master_whole)
BACKUP = Scene("backup", "backing_up", _copy_or_none, _copied, "backed up")
RESTORE = Scene("restore", "restoring", _master, _restored, "backed up")
UPGRADE = Scene("upgrade", "upgrade", _upgraded, _upgraded_whole, "old")
SCENES = (BOOTSTRAP, LIVE, REBUILD, CHECKPOINT, REPLACING_DAMAGED, UPSTREAM, MASTER, BACKUP, RESTORE, UPGRADE)


class Props:
    """Directories as scenes begin with them, in memory: what is tested is the order of calls, not a disk."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        memory = Path("/dev/shm")
        self._room = tempfile.TemporaryDirectory(prefix="torture-", dir=memory if memory.is_dir() else None)
        self._count = 0
        self._made: dict[str, Path] = {}

    def close(self) -> None:
        self._room.cleanup()

    @contextmanager
    def directory(self, begins: str) -> Iterator[Path]:
        """A fresh copy."""
        if begins not in self._made:
            self._made[begins] = self._make(begins)
        self._count += 1
        copy = Path(self._room.name) / f"{self._count}"
        shutil.copytree(self._made[begins], copy)
        try:
            yield copy
        finally:
            shutil.rmtree(copy)

    def _make(self, begins: str) -> Path:
        path = Path(self._room.name) / begins.replace(" ", "-")
        path.mkdir()
        if begins == "backed up":
            assert self._stage.play("ready_for_restore", path).said == [{"done": True}]
            return path
        if begins != "empty":
            assert BOOTSTRAP.play(self._stage, path).said[-1] == {"done": True}
        if begins.startswith("worn"):
            shutil.rmtree(path)
            path.mkdir()
            assert self._stage.play("wear", path, stop=begins == "worn, stopped").said[-1] == {"done": True}
        if begins == "old":
            assert self._stage.play("age", path).said == [{"done": True}]
        if begins == "half checkpointed":
            nth = CHECKPOINT.play(self._stage, _copy(path), count=KILLED_AT).calls["pwrite64"] // 2
            assert CHECKPOINT.play(self._stage, path, strace=Point("pwrite64", nth).kill()).code == -9
        return path


def _copy(path: Path) -> Path:
    return Path(shutil.copytree(path, path.with_name(f"{path.name}-copy")))


def calls_of(scene: Scene, stage: Stage, props: Props, names: tuple[str, ...]) -> Counter[str]:
    """How often the scene makes each call when nothing is done to it."""
    with props.directory(scene.begins) as directory:
        played = scene.play(stage, directory, count=names)
        assert (played.said[-1], played.code) == ({"done": True}, 0), played.said
        return played.calls
