"""One store's node: all parts that follow HQ and report to it, and the one turn of their loop.

The daemon, the simulation, the fault suite and the tests all run `Node.turn`; nobody else writes down its steps. What a
node does not have is a process: signals, waiting, the watchdog, the API's process and the exit are the daemon's
(storenode/daemon.py). It has no clock and starts no thread but the schedule of jobs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, Self

from storelink.contract.streams import Stream
from storelink.host.logs import get_logger
from storelink.transport.port import Link, LinkEvent, NotConnected
from storenode.clock.store_clock import StoreClock, steady_ms
from storenode.follow.router import Router
from storenode.follow.spool import Spool
from storenode.follow.unfollow import UnfollowedStreams
from storenode.jobs.availability import AvailabilityLog, last_seen_ms
from storenode.outbox.override_copy import OverrideCopy
from storenode.outbox.sender import Sender
from storenode.outbox.status_publisher import StatusPublisher
from storenode.replica.writer import Replica

if TYPE_CHECKING:
    from storenode.config import Settings

log = get_logger()

EVENTS_PER_TURN = 500
SENDER_STEPS = 20
HEARTBEAT_EVERY_MS = 2_000
JOBS_WAIT_MS = 5_000
"""The schedule starts once the store is live, or by then."""

WAL_BYTES_TARGET = 16 * 1024 * 1024
"""A log of the replica that is larger is moved into the file."""


class Events(Protocol):
    """The queue of a link's events; `dropped`: messages that it had no room for."""

    dropped: int

    def pop(self) -> LinkEvent | None: ...
    def __len__(self) -> int: ...


class Commands(Protocol):
    """What jobs and scans ask of the writer; see storenode/jobs/commands.py."""

    def begin(self) -> None:
        """Start the schedule."""

    def obey(self, mono_ms: int) -> None:
        """Carry out what was asked for since the last turn."""

    def stop(self) -> None: ...


class Node:
    """
    Owned by the writer thread, whose replica it writes. A crash at any point of a turn loses nothing: what counts is
    in the replica's and the outbox's transactions.

    `stopping`: set it, from anywhere, and the present turn takes no further event.
    """

    def __init__(
        self,
        settings: Settings,
        replica: Replica,
        link: Link,
        events: Events,
        clock: StoreClock,
        router: Router,
        commands: Commands,
        availability: AvailabilityLog,
    ) -> None:
        self.replica, self.router, self.commands = replica, router, commands
        self.stopping = False
        self._settings, self._link, self._events, self._clock = settings, link, events, clock
        self._availability = availability
        self._unfollowed = UnfollowedStreams(replica, router.followers)
        self.sender = Sender(settings.root, settings.store_id, settings.outbox_path, settings.outbox_max_bytes, link)
        self._override_copy = OverrideCopy(settings.outbox_path, replica, settings.store_id)
        self._status_publisher = StatusPublisher(
            settings.root, settings.store_id, replica.connection, settings.registry, link
        )
        self._has_jobs = False
        self._jobs_by_ms = self._started_ms = self._heartbeat_ms = 0
        self._heartbeat_connected: bool | None = None

    @classmethod
    def open(
        cls,
        settings: Settings,
        replica: Replica,
        link: Link,
        events: Events,
        *,
        spools: Callable[[Stream], Spool],
        commands: Callable[[Router], Commands],
        steady_ms: Callable[[], int] = steady_ms,
    ) -> Self:
        """
        Build the node of an open replica, and read where its streams and its clock stand.

        Args:
            spools: gives each stream the place for its fetched segments.
            commands: gives the router its queue of commands.
            steady_ms: a clock that nobody sets, in milliseconds.
        """
        clock = StoreClock.open(replica, settings.clock_hold_days, steady_ms)
        for name, reason in replica.left_out.items():
            log.warning("context.left_out", context=name, reason=reason)
        router = Router.open(
            settings.root,
            replica,
            spools,
            link,
            tuple(s for s in settings.streams() if s.context.name not in replica.left_out),
            max_kbps=settings.max_kbps,
            heard=lambda at_ms, live: clock.heard(at_ms, live=live),
        )
        availability = AvailabilityLog(settings.outbox_path, last_seen_ms(replica))
        return cls(settings, replica, link, events, clock, router, commands(router), availability)

    def start(self, mono_ms: int, wall_ms: int) -> None:
        """Bring the replica up to date with what is here already, then let the link connect."""
        self._started_ms, self._jobs_by_ms = wall_ms, mono_ms + JOBS_WAIT_MS
        self._unfollowed.start()
        self._override_copy.step(mono_ms, woken=True)
        self._beat(mono_ms, wall_ms, pid=os.getpid())
        self._link.start()

    def turn(self, mono_ms: int, wall_ms: int, *, woken: bool) -> bool:
        """
        Take what has come, and do what is due.

        Args:
            mono_ms: a monotonic clock.
            wall_ms: since 1970.
            woken: somebody has written to the outbox.

        Returns:
            True if there is more to do at once.

        Raises:
            ReplicaDamaged: move the file away and begin anew.
            StorenodeError: the replica cannot be written.
        """
        try:
            self._take_events(mono_ms, wall_ms)
            self.router.flush(wall_ms)
            self.router.step(mono_ms)
            self._report(mono_ms, wall_ms, woken=woken)
        except NotConnected:
            pass  # the Disconnected event is already on its way
        self._override_copy.step(mono_ms, woken=woken)
        self._unfollowed.step(mono_ms, connected=self.router.connected)
        self.commands.obey(mono_ms)
        self._availability.step(self.router.states, mono_ms, self._clock.price_ms(wall_ms))
        if self._is_heartbeat_due(mono_ms, wall_ms):
            self._beat(mono_ms, wall_ms, pid=os.getpid())
        if not self._has_jobs and (mono_ms >= self._jobs_by_ms or self.router.is_settled):
            self._has_jobs = True
            self.commands.begin()
        return len(self._events) > 0 or self.router.use_pause()

    def stop(self, wall_ms: int) -> None:
        """Say that a clean stop comes, let go of the line, and leave a file that readers can open."""
        self.commands.stop()
        self._status_publisher.leave(wall_ms)
        self._link.close()
        self.router.close()
        self._availability.end(self._clock.price_ms(wall_ms))
        self._beat(0, wall_ms, pid=None)
        self.replica.close_for_readers()

    def abandon(self) -> None:
        """Let go of a damaged replica's file, and of the line."""
        self.commands.stop()
        self._link.close()
        self.replica.connection.close()

    def _take_events(self, mono_ms: int, wall_ms: int) -> None:
        for _ in range(EVENTS_PER_TURN):
            event = self._events.pop()
            if event is None or self.stopping:
                return
            self._status_publisher.handle(event, mono_ms)
            if not self.sender.handle(event, mono_ms):
                self.router.handle(event, mono_ms, wall_ms)

    def _report(self, mono_ms: int, wall_ms: int, *, woken: bool) -> None:
        """Send HQ what waits in the outbox, and this store's status."""
        for _ in range(SENDER_STEPS):
            if not self.sender.step(mono_ms, wall_ms, woken=woken):
                break
        keys = tuple(follower.status_key for follower in self.router.followers.values())
        self._status_publisher.step(keys, self.sender.status, mono_ms, wall_ms, self._clock.skew_ms)

    def _is_heartbeat_due(self, mono_ms: int, wall_ms: int) -> bool:
        return (
            mono_ms - self._heartbeat_ms >= HEARTBEAT_EVERY_MS
            or self.router.connected != self._heartbeat_connected
            or self._clock.is_set(wall_ms)
        )

    def _beat(self, mono_ms: int, wall_ms: int, *, pid: int | None) -> None:
        """Write down that the daemon lives and how its clock stands, and keep the replica's log short."""
        self._heartbeat_ms, self._heartbeat_connected = mono_ms, self.router.connected
        self.replica.heartbeat(
            store_id=self._settings.store_id,
            pid=pid,
            connected=self.router.connected,
            started_at_ms=self._started_ms,
            counters=dict(self.router.counters + self.sender.counters) | {"dropped": self._events.dropped},
            wall_ms=wall_ms,
        )
        self._clock.note(wall_ms)
        if self.replica.wal_bytes() > WAL_BYTES_TARGET:
            self.replica.checkpoint()
