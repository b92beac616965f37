"""`storenode run`: the composition root of the store's daemon, and its process.

The main thread is the one writer: it runs the turns of the node (storenode/node.py), which owns the replica's writing
connection, and feeds the watchdog by its own progress. A clean stop leaves the last connection open on purpose
(`os._exit`): closing it would remove -wal and -shm, without which a till that may not write the directory cannot open
the file.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from storelink.host.locks import lock_instance, lock_path
from storelink.host.logs import configure_logs, get_logger
from storelink.host.process import notify_supervisor, on_reload, on_stop
from storelink.transport.event_queue import EventQueue
from storelink.transport.mqtt import MqttLink
from storenode.api_process import ApiProcess
from storenode.errors import AlreadyRunning, ReplicaDamaged, StorenodeError
from storenode.follow.spool import FileSpool
from storenode.follow.unfollow import sweep_spools
from storenode.jobs.commands import WriterCommands
from storenode.node import Node
from storenode.outbox.lock import OutboxLock
from storenode.outbox.status_publisher import last_will
from storenode.replica.file import on_disk, replace_damaged
from storenode.replica.writer import Replica

if TYPE_CHECKING:
    from storenode.config import Settings

log = get_logger()

IDLE_WAIT_S = 0.5
RENEW_PAUSE_S = 2.0
"""The pause before a daemon with a damaged replica begins anew: a bad disk must not make it spin."""

WATCHDOG_EVERY_MS = 2_000


class Daemon:
    """The process around a node; made by `open`. `lock`: the outbox's, held as long as this lives."""

    def __init__(
        self, settings: Settings, reread: Callable[[], Settings], node: Node, inbox: EventQueue, lock: OutboxLock
    ) -> None:
        self._settings, self._reread, self._node, self._inbox, self._lock = settings, reread, node, inbox, lock
        self._reloading = False
        self._api = ApiProcess(settings)
        self._watchdog_ms = 0

    @classmethod
    def open(cls, settings: Settings, reread: Callable[[], Settings]) -> Self:
        """
        Open the replica and take the outbox's lock; nothing is connected yet.

        Raises:
            AlreadyRunning: another daemon has this outbox.
            StorenodeError: the replica cannot be opened.
        """
        inbox = EventQueue()
        replica = _opened(settings)
        will = last_will(settings.root, settings.store_id, _wall_ms())
        link = MqttLink(settings.broker, f"store-{settings.store_id}", inbox.put, will)
        node = Node.open(
            settings,
            replica,
            link,
            inbox,
            spools=lambda stream: FileSpool.open(_spools(settings.db) / stream.context.name / stream.scope),
            commands=lambda router: WriterCommands(settings, replica, router, inbox.wake),
        )
        sweep_spools(_spools(settings.db), node.router.followers)
        return cls(settings, reread, node, inbox, OutboxLock.take(settings.outbox_path))

    def run(self) -> bool:
        """Follow HQ until SIGTERM or SIGINT; True if it is to begin anew, because its settings changed."""
        on_stop(self._stop)
        on_reload(self._reload)
        self._node.start(_mono_ms(), _wall_ms())
        notify_supervisor("READY=1")
        log.info("store.started", store_id=self._settings.store_id, pid=os.getpid())
        more = False
        while not self._node.stopping and not self._has_other_settings():
            more = self._turn(0.0 if more else IDLE_WAIT_S)
        if self._node.stopping:  # to systemd a daemon that begins anew has not stopped
            notify_supervisor("STOPPING=1")
        self._node.stop(_wall_ms())
        self._api.stop()
        log.info("store.stopped")
        return not self._node.stopping

    def abandon(self) -> None:
        """Let go of a damaged replica's file, of the line and of the API's process."""
        self._node.abandon()
        self._api.stop()

    def _stop(self) -> None:
        self._node.stopping = True
        self._inbox.wake()

    def _reload(self) -> None:
        self._reloading = True
        self._inbox.wake()

    def _has_other_settings(self) -> bool:
        """Whether somebody has asked to read the settings again, and they differ; bad ones change nothing."""
        if not self._reloading:
            return False
        self._reloading = False
        try:
            changed = self._reread() != self._settings
        except StorenodeError as error:
            log.error("settings.rejected", error=str(error))
            return False
        log.info("settings.reread", changed=changed)
        return changed

    def _turn(self, wait_s: float) -> bool:
        """Wait until there is something to do, let the node do it, and tell the supervisor that the loop goes on."""
        select.select([self._inbox.fileno(), self._lock.wakeup.fileno()], [], [], wait_s)
        self._inbox.clear_wake()
        woken = self._lock.wakeup.drain()
        mono_ms = _mono_ms()
        more = self._node.turn(mono_ms, _wall_ms(), woken=woken)
        self._api.step(mono_ms)
        if mono_ms - self._watchdog_ms >= WATCHDOG_EVERY_MS:
            self._watchdog_ms = mono_ms
            notify_supervisor("WATCHDOG=1")
        return more


def _mono_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _spools(db: Path) -> Path:
    return db.with_name(f"{db.name}.spool")


def _opened(settings: Settings) -> Replica:
    """Open the replica; a damaged one of ours is moved away, and a new one made."""
    try:
        return Replica.open(settings.db, settings.scopes, settings.registry)
    except ReplicaDamaged as error:
        served = _spools(settings.db).exists()
        replace_damaged(settings.db, datetime.now(UTC), error, served_here=served)
    return Replica.open(settings.db, settings.scopes, settings.registry)


def _begin_anew() -> None:
    """Replace this process by the same command; open files close by themselves, the lock too; SQLite's files stay."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the new one listens
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own command line


def run(reread: Callable[[], Settings]) -> None:
    """Run the store's daemon in this process; does not return. `reread`: reads the settings, again on SIGHUP."""
    settings = reread()
    configure_logs()
    with on_disk(settings.db):
        settings.db.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_instance(lock_path(settings.db))
    if lock is None:
        raise AlreadyRunning(
            f"another `storenode run` has the replica {settings.db}",
            hint="stop it first (systemctl stop storenode), or give --db another path",
        )
    code = 0
    daemon: Daemon | None = None
    try:
        daemon = Daemon.open(settings, reread)
        if daemon.run():
            _begin_anew()
    except ReplicaDamaged as error:
        if daemon is None:
            raise
        daemon.abandon()
        replace_damaged(settings.db, datetime.now(UTC), error, served_here=True)
        time.sleep(RENEW_PAUSE_S)
        _begin_anew()
    except StorenodeError:
        raise
    except Exception:
        log.exception("store.failed")
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
