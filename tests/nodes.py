"""A store's node in a test: on a link in memory, without threads and without a process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from storelink.contract.streams import Stream
from storelink.transport.memory import MemoryBroker, MemoryLink
from storelink.transport.port import LinkEvent
from storenode.config import Settings
from storenode.follow.router import Router
from storenode.follow.spool import MemorySpool, Spool
from storenode.jobs.background import Background
from storenode.jobs.commands import WriterCommands
from storenode.node import Node
from storenode.replica.writer import Replica


class Queue:
    """A link's events until the node's turn."""

    def __init__(self) -> None:
        self.dropped = 0
        self._events: deque[LinkEvent] = deque()
        self.put = self._events.append

    def pop(self) -> LinkEvent | None:
        return self._events.popleft() if self._events else None

    def __len__(self) -> int:
        return len(self._events)


class AtOnce(Background):
    """Background work that is done when it is asked for: no thread, so that a seed replays identically."""

    def start(self, name: str, work: Callable[[], None]) -> None:
        work()


class Unscheduled(WriterCommands):
    """A node's commands without the schedule's threads; `begun`: the schedule would run."""

    begun = False

    def begin(self) -> None:
        self.begun = True

    def stop(self) -> None:
        self.begun = False


class NodeInMemory:
    """One life of a node: what `storenode run` has, but for the process. `wall_ms` at `mono_ms` 0 is given."""

    def __init__(
        self,
        settings: Settings,
        broker: MemoryBroker,
        client_id: str,
        *,
        wall_ms: int,
        mono_ms: int = 0,
        spools: Callable[[Stream], Spool] = lambda _: MemorySpool(),
    ) -> None:
        self.mono_ms, self._wall_ms = mono_ms, wall_ms
        self.replica = Replica.open(settings.db, settings.scopes, settings.registry)
        self.events = Queue()
        self.link = MemoryLink(broker, client_id, self.events.put)

        def commands(router: Router) -> Unscheduled:
            self.commands = Unscheduled(settings, self.replica, router, lambda: None, AtOnce())
            return self.commands

        self.node = Node.open(
            settings,
            self.replica,
            self.link,
            self.events,
            spools=spools,
            commands=commands,
            steady_ms=lambda: self.mono_ms,
        )
        self.router = self.node.router
        self.node.start(mono_ms, wall_ms + mono_ms)

    def turn(self, mono_ms: int, *, woken: bool = False) -> bool:
        self.mono_ms = mono_ms
        return self.node.turn(mono_ms, self._wall_ms + mono_ms, woken=woken)

    def crash(self) -> None:
        """Let go of link and files, as the end of a process does."""
        self.link.close()
        self.node.sender.close()
        self.replica.connection.close()
