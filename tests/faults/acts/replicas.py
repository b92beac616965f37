"""Acts on a store's replica: catch-up, live batches, rebuild, checkpoint, a worn one, a damaged one."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from storelink.contract.contexts import BUILT_IN
from storelink.transport.memory import MemoryBroker, MemoryLink
from storelink.transport.port import LinkEvent
from storenode.config import Settings
from storenode.errors import ReplicaDamaged, StorenodeError
from storenode.follow.router import Router
from storenode.follow.spool import FileSpool
from storenode.jobs.commands import WriterCommands
from storenode.replica.file import replace_damaged
from storenode.replica.verify import prove
from storenode.replica.writer import Replica
from tests.faults.acts.damage import worn_stories
from tests.faults.acts.selling import STREAMS
from tests.faults.acts.stage import Say
from tests.faults.acts.stories import AT_MS, NEW_EPOCH, ROOT, Story, story
from tests.faults.scale import seeded

TURNS_MAX = 200
SEGMENT_ROWS = 8
UPTO = 2
"""Change sets in the retained messages; the last of them is the head's tail."""


def stories(epoch: str, seed: int = 1) -> list[Story]:
    """What HQ had in both streams; a new epoch begins anew with other rows."""
    extra = 5 if epoch == NEW_EPOCH else 0
    return [story(str(s), seed + extra, entities=16 + extra, sets=4, epoch=epoch) for s in STREAMS]


class Store:
    """A store's writer without its daemon: worker, replica and spool on a broker in memory that keeps `told`."""

    def __init__(self, directory: Path, told: list[Story], upto: int, say: Say) -> None:
        self._told, self._say, self._upto = told, say, upto
        self._broker = MemoryBroker(seeded("replica"))
        self._broker.reconnect_ms_max = 0
        for each in told:
            seq = each.ends[upto]
            for message in each.retained(seq, each.ends[max(upto - 1, 0)], SEGMENT_ROWS):
                self._broker.retained[message.topic] = message
        self._now_ms = 0
        self._events: list[LinkEvent] = []
        self.replica = Replica.open(directory / "replica.db", ("all",), BUILT_IN)
        link = MemoryLink(self._broker, "store", self._events.append)
        spool = directory / "replica.db.spool"
        self._worker = Router(ROOT, self.replica, lambda s: FileSpool(spool / s.context.name / s.scope), link, STREAMS)
        link.start()
        self._hq = MemoryLink(self._broker, "hq", lambda _: None)
        self._hq.start()
        self._said: dict[str, int] = {}

    def settle(self) -> None:
        """Turn until every stream is live and the search index is fed."""
        for _ in range(TURNS_MAX):
            self.turn()
            if self._worker.is_settled:
                return
        raise AssertionError("the store does not settle")

    def follow(self, sets: int, *, checkpoints: bool = True) -> None:
        """Go through the next change sets live, with a checkpoint after each."""
        for end in range(self._upto, self._upto + sets):
            for each in self._told:
                for message in each.live(each.ends[end], each.ends[end + 1]):
                    self._hq.publish(message)
                    self.turn()
            self.settle()
            if checkpoints:
                self.replica.checkpoint()
        self._upto += sets

    def hear(self, heartbeats: int) -> None:
        """HQ says several times where it stands."""
        for _ in range(heartbeats):
            for each in self._told:
                self._hq.publish(each.heartbeat(each.ends[self._upto], AT_MS + self._now_ms))
            self.turn()

    def prove(self) -> None:
        """What the daemon does at night and after its start, at once. Raises ReplicaDamaged."""
        commands = WriterCommands(Settings(db=self.replica.path), self.replica, self._worker, lambda: None)
        lives = {stream: follower.life for stream, follower in self._worker.followers.items()}
        prove(self.replica.path, lives, commands.submit)
        self._worker.prove_search()
        commands.obey(self._now_ms)

    def turn(self) -> None:
        self._now_ms += 100
        wall_ms = AT_MS + self._now_ms
        self._broker.advance(self._now_ms)
        waiting, self._events[:] = list(self._events), []
        for event in waiting:
            self._worker.handle(event, self._now_ms, wall_ms)
        self._worker.flush(wall_ms)
        self._worker.step(self._now_ms)
        self._worker.use_pause()
        self.replica.heartbeat(store_id="s", pid=1, connected=True, started_at_ms=AT_MS, counters={}, wall_ms=wall_ms)
        for stream, follower in self._worker.followers.items():
            if self._said.get(str(stream)) != follower.position.seq:
                self._said[str(stream)] = follower.position.seq
                self._say(stream=str(stream), epoch=follower.position.epoch, position=follower.position.seq)


def _as_the_daemon(say: Say, work: Callable[[], None]) -> None:
    """An error of ours ends the daemon; the supervisor starts it again."""
    try:
        work()
    except StorenodeError as error:
        say(error=type(error).__name__, hint=error.hint)
        say.pause()
        os._exit(1)  # as `storenode run` ends: no connection is closed


def bootstrap(directory: Path, say: Say, *, upto: int = UPTO, epoch: str) -> None:
    """An empty store, or one of another epoch (then its rows are replaced), catches up through its spool."""

    def work() -> None:
        Store(directory, stories(epoch), upto, say).settle()
        say(done=True)
        os._exit(0)

    _as_the_daemon(say, work)


def live(directory: Path, say: Say, *, upto: int = UPTO, sets: int = 2, epoch: str) -> None:
    """A store that is caught up applies change sets live, each of several batches."""

    def work() -> None:
        store = Store(directory, stories(epoch), upto, say)
        store.settle()
        store.follow(sets)
        say(done=True)
        os._exit(0)

    _as_the_daemon(say, work)


def wear(directory: Path, say: Say, *, stop: bool) -> None:
    """Wear a replica in: rows in the file, newer ones in its log, of which some are in the file as well."""
    store = Store(directory, worn_stories(), UPTO, say)
    store.settle()
    store.follow(2)
    store.follow(1, checkpoints=False)
    if stop:
        store.replica.close_for_readers()
    say(done=True)
    os._exit(0)


def heal(directory: Path, say: Say) -> None:
    """Start on a damaged replica as the daemon does, until all is proven and live: HQ's news are in the broker."""
    path, told = directory / "replica.db", worn_stories()
    for _ in range(3):
        try:
            store = Store(directory, told, len(told[0].ends) - 1, say)
            store.turn()
            store.hear(5)
            store.settle()
            store.prove()
            store.hear(5)
            store.settle()
            say(done=True)
            os._exit(0)
        except ReplicaDamaged as error:
            say(moved_away=str(error))
            gc.collect()  # no connection of ours may be open
            replace_damaged(path, datetime.now(UTC), error, served_here=True)


def checkpoint(directory: Path, say: Say) -> None:
    """Move a full log into the file, begin it anew, and leave the file as a clean stop does."""

    def work() -> None:
        replica = Replica.open(directory / "replica.db", ("all",), BUILT_IN)
        say(opened=True)
        replica.checkpoint()
        replica.note(STREAMS[0], state="offline", head_seq=99, as_of_ms=AT_MS)
        replica.checkpoint()
        replica.close_for_readers()
        say(done=True)
        os._exit(0)

    _as_the_daemon(say, work)


def replacing_damaged(directory: Path, say: Say) -> None:
    """What `storenode run` does when its replica turns out damaged: move it away, make a new one."""

    def work() -> None:
        path = directory / "replica.db"
        if not path.with_name("begun").exists():
            path.with_name("begun").touch()
            replace_damaged(path, datetime.now(UTC), ReplicaDamaged("found by a statement"), served_here=True)
        Replica.open(path, ("all",), BUILT_IN)
        say(done=True)
        os._exit(0)

    _as_the_daemon(say, work)
