"""`hq run`: opens everything, and runs the loop of the publishing daemon until it is told to stop.

One thread does the work (`hq.node`); the link has a thread of its own, and so has the checkpointer. A crash leaves
what was committed in the master, and what was acknowledged to stores in the inbox.
"""

from __future__ import annotations

import os
import secrets
import select
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from hq.collect.inbox import StoreInbox, inbox_path
from hq.master.checkpointer import Checkpointer
from hq.master.connection import make_for_group
from hq.master.context_migration import left_out
from hq.master.lock import hold
from hq.master.store import Master
from hq.master.wakeup import wakeup_of
from hq.node import DAY_MS, Node, Options
from hq.publish.publication import Publication, publication_path
from storelink.host.logs import configure_logs, get_logger
from storelink.host.process import give_back_memory, notify_supervisor, on_stop
from storelink.host.wakeup import Wakeup
from storelink.transport.event_queue import EventQueue
from storelink.transport.mqtt import MqttLink

if TYPE_CHECKING:
    from hq.config import Settings

log = get_logger()

IDLE_WAIT_S = 0.25
"""The slow fallback: how late a commit is noticed whose datagram got lost."""

WATCHDOG_EVERY_MS = 2_000

CACHE_BYTES = 8_388_608
"""What this connection keeps of the master: it reads each row once or twice, and then the tail."""


class Daemon:
    """The loop: waits for an event or a commit, then does the node's turn; feeds the watchdog by its own progress."""

    def __init__(self, node: Node, master: Master, events: EventQueue, wakeup: Wakeup) -> None:
        self._node, self._master, self._events, self._wakeup = node, master, events, wakeup
        self._is_stopping = False
        self._is_busy = False
        self._next_watchdog_ms = 0

    def run(self) -> None:
        """Publish until `stop` is called."""
        while not self._is_stopping:
            select.select([self._wakeup.fileno(), self._events.fileno()], [], [], 0.0 if self._is_busy else IDLE_WAIT_S)
            self._wakeup.drain()
            self._events.clear_wake()
            self._turn(time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000_000)

    def _turn(self, mono_ms: int, wall_ms: int) -> None:
        was_busy, self._is_busy = self._is_busy, self._node.turn(mono_ms, wall_ms)
        if mono_ms >= self._next_watchdog_ms:
            self._next_watchdog_ms = mono_ms + WATCHDOG_EVERY_MS
            notify_supervisor("WATCHDOG=1")
        if was_busy and not self._is_busy:
            self._master.shrink_memory()
            give_back_memory()

    def stop(self) -> None:
        """End `run` after the turn under way; a signal handler may call it."""
        self._is_stopping = True
        self._events.wake()


def run(settings: Settings, *, take_over: bool = False) -> None:
    """
    Run the publishing daemon in this process.

    Args:
        take_over: publish over the heads of other masters that the broker keeps at the first look.

    Raises:
        AlreadyRunning: another has the master.
    """
    configure_logs()
    with ExitStack() as opened:
        opened.enter_context(hold(settings.db))
        master = opened.enter_context(Master.open(settings.db, settings.registry))
        wakeup = opened.enter_context(closing(wakeup_of(settings.db)))
        master.limit_memory(CACHE_BYTES)
        # Where a context is left out, it may be for columns that it has gained: the first write gives its rows those.
        # Elsewhere nothing is written here, which would wait for an import that is under way.
        if left_out(master.query, settings.registry):
            with master.writing():
                pass
        for path in (publication_path(settings.db), inbox_path(settings.db)):
            make_for_group(path)
        publication = opened.enter_context(closing(Publication.open(publication_path(settings.db))))
        inbox = StoreInbox(inbox_path(settings.db))
        events = EventQueue()
        # A name of its own: of two clients with one name, brokers disconnect the older one.
        name = f"hq-{settings.root.replace('/', '-')}-{secrets.token_hex(4)}"
        link = MqttLink(settings.broker, name, events.put)
        node = Node.assemble(settings.root, master, publication, inbox, link, events.pop, _options(settings, take_over))
        daemon = Daemon(node, master, events, wakeup)
        checkpointer = Checkpointer(settings.db)
        on_stop(daemon.stop)
        link.start()
        checkpointer.start()
        notify_supervisor("READY=1")
        log.info("publisher.started", pid=os.getpid())
        try:
            daemon.run()
        finally:
            notify_supervisor("STOPPING=1")
            link.close()
            checkpointer.stop()
            node.stop(time.time_ns() // 1_000_000)
            log.info("publisher.stopped")


def _options(settings: Settings, take_over: bool) -> Options:
    return Options(
        head_interval_ms=settings.head_interval_ms,
        heartbeat_ms=int(settings.heartbeat_s * 1000),
        segment_grace_ms=int(settings.segment_grace_s * 1000),
        tombstones_kept_ms=int(settings.tombstone_days * DAY_MS),
        entries_kept_ms=int(settings.inbox_days * DAY_MS),
        take_over=take_over,
    )
