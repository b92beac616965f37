"""`hq run`: the composition root and the loop of the publishing daemon."""

from __future__ import annotations

import os
import secrets
import select
import time
from typing import TYPE_CHECKING

from hq.collect.inbox import StoreInbox, inbox_path
from hq.collect.receiver import Receiver
from hq.collect.retention import InboxRetention
from hq.master.checkpointer import Checkpointer
from hq.master.connection import make_for_group
from hq.master.context_migration import left_out
from hq.master.lock import hold
from hq.master.retention import Retention
from hq.master.store import Master
from hq.master.wakeup import bell_of
from hq.publish.publication import Publication, publication_path
from hq.publish.publisher import Publisher
from storelink.host.logs import configure_logs, get_logger
from storelink.host.process import give_back_memory, notify_supervisor, on_stop
from storelink.transport.event_queue import EventQueue
from storelink.transport.mqtt import MqttLink
from storelink.transport.port import NotConnected

if TYPE_CHECKING:
    from hq.config import Settings

log = get_logger()

IDLE_WAIT_S = 0.25
"""The slow fallback: how late a commit is noticed whose datagram got lost."""

SEEN_EVERY_MS = 2_000
DAY_MS = 86_400_000

CACHE_BYTES = 8_388_608
"""What this connection keeps of the master: it reads each row once or twice, and then the tail."""

EVENTS_PER_TURN = 1_000


class Daemon:
    """Everything that `hq run` owns; built here, started in `run`."""

    def __init__(self, settings: Settings, *, take_over: bool = False) -> None:
        self._inbox = EventQueue()
        self._stopping = False
        self._master = Master(settings.db, settings.registry)
        self._lock = hold(settings.db)
        self._bell = bell_of(settings.db)
        self._master.limit_memory(CACHE_BYTES)
        if left_out(self._master.query, settings.registry):  # else nothing waits here for an import with the write lock
            with self._master.writing():
                pass  # a declared context that gained columns gives them to its rows now
        self._checkpointer = Checkpointer(settings.db, settings.registry)
        for path in (publication_path(settings.db), inbox_path(settings.db)):
            make_for_group(path)
        self._publication = Publication(publication_path(settings.db))
        # A name of its own: brokers throw the older of two clients of one name off the line.
        name = f"hq-{settings.root.replace('/', '-')}-{secrets.token_hex(4)}"
        self._link = MqttLink(settings.broker, name, self._inbox.put)
        self._publisher = Publisher(
            settings.root,
            self._master,
            self._publication,
            self._link,
            head_interval_ms=settings.head_interval_ms,
            heartbeat_ms=int(settings.heartbeat_s * 1000),
            segment_grace_ms=int(settings.segment_grace_s * 1000),
            take_over=take_over,
        )
        self._retention = Retention(self._master, int(settings.tombstone_days * DAY_MS))
        store_inbox = StoreInbox(inbox_path(settings.db))
        self._collector = Receiver(settings.root, store_inbox, self._link)
        self._pruning = InboxRetention(store_inbox, int(settings.inbox_days * DAY_MS))
        self._left_out: dict[str, str] = {}
        self._seen_ms = 0
        self._worked = False
        self._seen: tuple[bool, bool] | None = None
        self._foreign = self._publication.foreign()

    def run(self) -> None:
        """Publish until SIGTERM or SIGINT."""
        on_stop(self._stop)
        self._link.start()
        self._checkpointer.start()
        notify_supervisor("READY=1")
        log.info("publisher.started", pid=os.getpid())
        try:
            again = False
            while not self._stopping:
                again = self._turn(0.0 if again else IDLE_WAIT_S)
        finally:
            notify_supervisor("STOPPING=1")
            self._link.close()
            self._checkpointer.stop()
            self._publication.set_run(None, connected=False, now_ms=time.time_ns() // 1_000_000)
            log.info("publisher.stopped")

    def _stop(self) -> None:
        self._stopping = True
        self._inbox.wake()

    def _say_left_out(self) -> None:
        """Log each context that is declared here otherwise than in the master: it is not published."""
        found = left_out(self._master.query, self._master.contexts)
        for name, reason in found.items():
            if self._left_out.get(name) != reason:
                log.error("context.left_out", context=name, reason=reason)
        self._left_out = found

    def _note(self, wall_ms: int) -> None:
        """Let other processes see how this one stands."""
        self._publication.set_run(os.getpid(), connected=self._publisher.connected, now_ms=wall_ms)
        heads = self._publisher.heads.foreign
        foreign = sorted((name, max(head.epochs), head.seq, head.at_ms) for name, head in heads.items())
        if foreign != self._foreign:
            self._publication.set_foreign(foreign)
            self._foreign = foreign

    def _turn(self, wait_s: float) -> bool:
        """Take what came in, send what is due. True when there is more to do at once."""
        select.select([self._bell.fileno(), self._inbox.fileno()], [], [], wait_s)
        self._bell.drain()
        self._inbox.clear_wake()
        now_ms, wall_ms = time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000_000
        try:
            for _ in range(EVENTS_PER_TURN):
                event = self._inbox.pop()
                if event is None:
                    break
                if not self._collector.handle(event, now_ms, wall_ms):
                    self._publisher.handle(event, now_ms, wall_ms)
            self._collector.listen(may=self._publisher.may_publish)
            self._collector.flush(now_ms, wall_ms)
            again = self._publisher.step(now_ms, wall_ms)
        except NotConnected:
            again = False  # the Disconnected event is already on its way
        seen = self._publisher.connected, self._publisher.heads.silent
        if seen != self._seen or now_ms - self._seen_ms >= SEEN_EVERY_MS:
            self._seen_ms, self._seen = now_ms, seen
            self._note(wall_ms)
            notify_supervisor("WATCHDOG=1")
            self._say_left_out()
        if not again:
            again = self._retention.step(now_ms, wall_ms) or self._pruning.step(now_ms, wall_ms)
            if self._worked and not again:
                self._master.query("PRAGMA shrink_memory")
                give_back_memory()
        self._worked = again
        return again or len(self._inbox) > 0


def run(settings: Settings, *, take_over: bool = False) -> None:
    """
    Run the publishing daemon in this process.

    Args:
        take_over: publish over the heads of other masters that the broker keeps when it is first looked at.

    Raises:
        AlreadyRunning: another has the master.
    """
    configure_logs()
    Daemon(settings, take_over=take_over).run()
