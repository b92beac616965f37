"""`storenode api`: the socket, the process around the routes, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from storelink.host.logs import configure_logs, get_logger
from storelink.host.process import on_stop
from storenode.api.connection import Connection, sweep
from storenode.api.guard import Guard
from storenode.api.limits import HEADER_BYTES_MAX, IDLE_S
from storenode.api.routes import Api
from storenode.core.api_address import DEFAULT, Address, hosts_allowed, refusal
from storenode.errors import AlreadyRunning, BadSettings

if TYPE_CHECKING:
    from storenode.config import Settings

log = get_logger()

BACKLOG = 128
SOCKET_MODE = 0o660
STOP_S = 3
SWEEP_EVERY_TICKS = 10
"""uvicorn ticks ten times a second."""

SWITCH_INTERVAL_S = 0.0005
"""A thread that comes back from SQLite gets the interpreter within this time. The default is 5 ms, a lookup's limit."""


class Server(uvicorn.Server):
    """uvicorn's server; signals are ours, and connections of slow clients are ended."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        on_stop(self.stop)
        yield

    def stop(self) -> None:
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        if counter % SWEEP_EVERY_TICKS == 0:
            sweep(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)


def run(settings: Settings, *, supervised: bool) -> None:
    """
    Serve until SIGTERM or SIGINT.

    Args:
        supervised: end also with standard input, which is the daemon's pipe: it closes however the daemon dies.

    Raises:
        AlreadyRunning, BadSettings: it cannot listen there.
    """
    configure_logs()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    address = settings.api or DEFAULT
    if refused := refusal(address, settings.api_hosts):
        raise BadSettings(refused, hint="listen on 127.0.0.1 or a unix socket")
    app = Guard(Api(settings).app, hosts_allowed(address, settings.api_hosts))
    server = Server(
        uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=STOP_S,
            h11_max_incomplete_event_size=HEADER_BYTES_MAX,
            backlog=BACKLOG,
        )
    )
    gc.collect()
    gc.freeze()  # what was imported is never garbage; a full collection would hold up every request that is in
    with bound(address) as listener:
        if supervised:
            threading.Thread(target=_await_end_of_input, args=(server,), name="supervised", daemon=True).start()
        log.info("api.started", address=str(address), pid=os.getpid())
        server.run([listener])
    log.info("api.stopped")


@contextlib.contextmanager
def bound(address: Address) -> Iterator[socket.socket]:
    """A socket that listens at the address; the file of a unix socket is removed at the end."""
    # asyncio sets TCP_NODELAY only on what calls itself TCP; without it every answer takes 40 ms (traps of Nagle).
    protocol = 0 if address.path else socket.IPPROTO_TCP
    listener = socket.socket(_family(address), socket.SOCK_STREAM, protocol)
    try:
        if address.path:
            _clear(Path(address.path))
            listener.bind(address.path)
            Path(address.path).chmod(SOCKET_MODE)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1" if address.host == "localhost" else address.host, address.port))
    except OSError as error:
        listener.close()
        raise _in_our_words(address, error) from error
    try:
        yield listener
    finally:
        listener.close()
        if address.path:
            Path(address.path).unlink(missing_ok=True)


def _family(address: Address) -> socket.AddressFamily:
    if address.path:
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


def _clear(path: Path) -> None:
    """Remove the socket that a killed server left. Raises OSError when one answers there, or when it is no socket."""
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise FileExistsError(errno.EEXIST, "it is there and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise OSError(errno.EADDRINUSE, "something answers there")
    path.unlink()


def _in_our_words(address: Address, error: OSError) -> AlreadyRunning | BadSettings:
    problem = f"cannot listen at {address}: {error.strerror or error}"
    if error.errno == errno.EADDRINUSE:
        return AlreadyRunning(problem, hint="stop the other program, or choose another address: api / STORENODE_API")
    return BadSettings(problem, hint="check api / STORENODE_API; a unix socket's directory must be there")


def _await_end_of_input(server: Server) -> None:
    while os.read(sys.stdin.fileno(), 64):
        pass
    server.stop()
