"""`storenode run`: the composition root and the loop of the store's daemon.

The main thread is the one writer: it owns the replica's writing connection, takes link events and job
commands from queues, and feeds the watchdog by its own progress. A clean stop leaves the last connection
open on purpose (`os._exit`): closing it would remove -wal and -shm, without which a till that may not
write the directory cannot open the file.
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
from typing import TYPE_CHECKING

from storelink.contract.streams import Stream
from storelink.host.locks import lock_instance, lock_path
from storelink.host.logs import configure_logs, get_logger
from storelink.host.process import notify_supervisor, on_reload, on_stop
from storelink.transport.event_queue import EventQueue
from storelink.transport.mqtt import MqttLink
from storelink.transport.port import NotConnected
from storenode.api_process import ApiProcess
from storenode.clock.store_clock import StoreClock
from storenode.errors import AlreadyRunning, ReplicaDamaged, StorenodeError
from storenode.follow.router import Router
from storenode.follow.spool import FileSpool
from storenode.follow.unfollow import UnfollowedStreams, sweep_spools
from storenode.jobs.availability import AvailabilityLog, last_seen_ms
from storenode.jobs.commands import WriterCommands
from storenode.outbox.lock import OutboxLock
from storenode.outbox.override_copy import OverrideCopy
from storenode.outbox.sender import Sender
from storenode.outbox.status_publisher import StatusPublisher, last_will
from storenode.replica.file import on_disk, replace_damaged
from storenode.replica.writer import Replica

if TYPE_CHECKING:
    from storenode.config import Settings

log = get_logger()

IDLE_WAIT_S = 0.5
RENEW_PAUSE_S = 2.0
"""Before a daemon whose replica turned out damaged begins anew: a bad disk must not make it spin."""

JOBS_WAIT_MS = 5_000
"""The schedule starts once the store is live, or by then."""

HEARTBEAT_EVERY_MS = 2_000
EVENTS_PER_TURN = 500
SENDER_STEPS = 20
WAL_BYTES_TARGET = 16 * 1024 * 1024


class Daemon:
    """Everything that `storenode run` owns; built here, started in `run`."""

    def __init__(self, settings: Settings, reread: Callable[[], Settings]) -> None:
        self._settings, self._reread = settings, reread
        self._stopping = self._reloading = False
        self._inbox = EventQueue()
        self._replica = _opened(settings)
        for name, reason in self._replica.left_out.items():
            log.warning("context.left_out", context=name, reason=reason)
        streams = tuple(s for s in settings.streams() if s.context.name not in self._replica.left_out)
        will = last_will(settings.root, settings.store_id, time.time_ns() // 1_000_000)
        self._link = MqttLink(settings.broker, f"store-{settings.store_id}", self._inbox.put, will)
        self._clock = StoreClock.open(self._replica, settings.clock_hold_days)
        self._worker = Router(
            settings.root,
            self._replica,
            self._spool_of,
            self._link,
            streams,
            max_kbps=settings.max_kbps,
            heard=lambda at_ms, live: self._clock.heard(at_ms, live=live),
        )
        self._departures = UnfollowedStreams(self._replica, self._worker.followers)
        sweep_spools(_spools(settings.db), streams)
        self._orders = WriterCommands(settings, self._replica, self._worker, self._inbox.wake)
        self._claim = OutboxLock(settings.outbox_path)
        self._bell = self._claim.bell
        self._sender = Sender(
            settings.root, settings.store_id, settings.outbox_path, settings.outbox_max_bytes, self._link
        )
        self._ledger = AvailabilityLog(settings.outbox_path, last_seen_ms(self._replica))
        self._mirror = OverrideCopy(settings.outbox_path, self._replica, settings.store_id)
        self._announcer = StatusPublisher(
            settings.root, settings.store_id, self._replica.connection, settings.registry, self._link
        )
        self._api = ApiProcess(settings)
        self._has_jobs = False
        self._jobs_by_ms = time.monotonic_ns() // 1_000_000 + JOBS_WAIT_MS
        self._started_ms = time.time_ns() // 1_000_000
        self._heartbeat_ms = 0
        self._heartbeat_connected: bool | None = None

    def run(self) -> bool:
        """Follow HQ until SIGTERM or SIGINT; True if it is to begin anew, because its settings changed."""
        on_stop(self._stop)
        on_reload(self._reload)
        self._mirror.step(0, rung=True)
        self._beat(0, self._started_ms, pid=os.getpid())
        self._link.start()
        notify_supervisor("READY=1")
        log.info("store.started", store_id=self._settings.store_id, pid=os.getpid())
        more = False
        while not self._stopping and not self._has_other_settings():
            more = self._turn(0.0 if more else IDLE_WAIT_S)
        if self._stopping:  # to systemd a daemon that begins anew has not stopped
            notify_supervisor("STOPPING=1")
        self._orders.stop()
        self._announcer.leave(time.time_ns() // 1_000_000)
        self._link.close()
        self._worker.connected = False
        self._ledger.end(self._clock.price_ms(time.time_ns() // 1_000_000))
        self._beat(0, time.time_ns() // 1_000_000, pid=None)
        self._replica.close_for_readers()
        self._api.stop()
        log.info("store.stopped")
        return not self._stopping

    def abandon(self) -> None:
        """Let go of a damaged replica's file and of the line."""
        self._orders.stop()
        self._link.close()
        self._api.stop()
        self._replica.connection.close()

    def _spool_of(self, stream: Stream) -> FileSpool:
        return FileSpool(_spools(self._settings.db) / stream.context.name / stream.scope)

    def _stop(self) -> None:
        self._stopping = True
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
        select.select([self._inbox.fileno(), self._bell.fileno()], [], [], wait_s)
        self._inbox.clear_wake()
        rung = self._bell.drain()
        now_ms, wall_ms = time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000_000
        try:
            for _ in range(EVENTS_PER_TURN):
                event = self._inbox.pop()
                if event is None or self._stopping:
                    break
                self._announcer.handle(event, now_ms)
                if not self._sender.handle(event, now_ms):
                    self._worker.handle(event, now_ms, wall_ms)
            self._worker.flush(wall_ms)
            self._worker.step(now_ms)
            self._way_back(now_ms, wall_ms, rung=rung)
        except NotConnected:
            pass  # the Disconnected event is already on its way
        self._mirror.step(now_ms, rung=rung)
        self._departures.step(now_ms, connected=self._worker.connected)
        self._orders.obey(now_ms)
        self._api.step(now_ms)
        self._ledger.step(self._worker.states, now_ms, self._clock.price_ms(wall_ms))
        due = now_ms - self._heartbeat_ms >= HEARTBEAT_EVERY_MS or self._clock.is_set(wall_ms)
        if due or self._worker.connected != self._heartbeat_connected:
            self._beat(now_ms, wall_ms, pid=os.getpid())
        if not self._has_jobs and (now_ms >= self._jobs_by_ms or self._worker.is_settled):
            self._has_jobs = True
            self._orders.begin()
        return len(self._inbox) > 0 or self._worker.use_pause()

    def _way_back(self, now_ms: int, wall_ms: int, *, rung: bool) -> None:
        for _ in range(SENDER_STEPS):
            if not self._sender.step(now_ms, wall_ms, rung=rung):
                break
        states = tuple(follower.standing for follower in self._worker.followers.values())
        self._announcer.step(states, self._sender.status, now_ms, wall_ms, self._clock.skew_ms)

    def _beat(self, now_ms: int, wall_ms: int, *, pid: int | None) -> None:
        self._heartbeat_ms, self._heartbeat_connected = now_ms, self._worker.connected
        self._replica.heartbeat(
            store_id=self._settings.store_id,
            pid=pid,
            connected=self._worker.connected,
            started_at_ms=self._started_ms,
            counters=self._counters(),
            wall_ms=wall_ms,
        )
        self._clock.note(wall_ms)
        if self._replica.wal_bytes() > WAL_BYTES_TARGET:
            self._replica.checkpoint()
        notify_supervisor("WATCHDOG=1")

    def _counters(self) -> dict[str, int]:
        return dict(self._worker.counters + self._sender.counters) | {"dropped": self._inbox.dropped}


def _spools(db: Path) -> Path:
    return db.with_name(f"{db.name}.spool")


def _opened(settings: Settings) -> Replica:
    """The replica; a damaged one of ours is set aside for a new one."""
    try:
        return Replica.open(settings.db, settings.scopes, settings.registry)
    except ReplicaDamaged as error:
        served = _spools(settings.db).exists()
        replace_damaged(settings.db, datetime.now(UTC), error, served_here=served)
    return Replica.open(settings.db, settings.scopes, settings.registry)


def _begin_anew() -> None:
    """Become the same command once more; what is open closes by itself, the lock too, and SQLite's files stay."""
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
        daemon = Daemon(settings, reread)
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
