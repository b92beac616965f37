"""The local hook: a command or a web address that gets the prices that changed, so that labels are printed anew.

A hook has a time limit, its output is bounded, and whatever goes wrong with it is a `HookFailed`: nothing else stops.
"""

from __future__ import annotations

import http.client
import os
import select
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

from storenode.config import hook_environment
from storenode.errors import HookFailed

TIME_LIMIT_S = 30.0
OUTPUT_BYTES_MAX = 2_000
"""The end of a hook's output is kept: it holds the reason."""

READ_BYTES = 65_536
LOOK_EVERY_S = 0.1


def run_hook(hook: str, body: bytes, time_limit_s: float = TIME_LIMIT_S) -> None:
    """
    Run the hook; returns once it has succeeded.

    Args:
        hook: an http(s) address, which gets a POST and answers 2xx; or a command line (no shell), which gets `body`
            on its standard input and ends with 0. It runs in `/`, with `hook_environment` and nothing of the daemon's.
        body: JSON.

    Raises:
        HookFailed: anything else; with the end of its output.
    """
    if hook.startswith(("http://", "https://")):
        _post(hook, body, time_limit_s)
    else:
        _command(hook, body, time_limit_s)


def _command(line: str, body: bytes, time_limit_s: float) -> None:
    deadline_s = time.monotonic() + time_limit_s
    with tempfile.TemporaryFile() as given:
        given.write(body)
        given.seek(0)
        try:
            process = subprocess.Popen(  # noqa: S603 - the technician's own command, split without a shell
                shlex.split(line),
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=hook_environment(),
                start_new_session=True,
            )
        except OSError as error:
            problem = f"it cannot be started: {error.strerror or error}"
            raise HookFailed(problem, hint="check on_price_change") from error
        said = _listen(process, deadline_s)
        if said is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        assert process.stdout is not None
        process.stdout.close()
    if said is None:
        raise HookFailed(f"it took longer than {time_limit_s:g} s and was ended")
    if code != 0:
        raise HookFailed(f"it ended with {code}: {_readable(said)}")


def _listen(process: subprocess.Popen[bytes], deadline_s: float) -> bytes | None:
    """Read a process's output until it ends, and keep the end of it; None: it did not end in time."""
    said, pipe = b"", process.stdout
    assert pipe is not None
    is_open = True
    while True:
        ended = process.poll() is not None
        if is_open and select.select([pipe], [], [], 0.0 if ended else LOOK_EVERY_S)[0]:
            read = os.read(pipe.fileno(), READ_BYTES)
            is_open = bool(read)
            said = (said + read)[-OUTPUT_BYTES_MAX:]
        elif ended:
            return said
        elif not is_open:
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_EVERY_S)
        if time.monotonic() > deadline_s:
            return said if ended else None


def _post(address: str, body: bytes, time_limit_s: float) -> None:
    parts = urlsplit(address)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=time_limit_s)
    # The timeout is one read's; a server that sends a byte now and then is cut off by this.
    limit = threading.Timer(time_limit_s, _cut, (connection,))
    limit.daemon = True
    limit.start()
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, {"Content-Type": "application/json", "User-Agent": "storenode"})
        answer = connection.getresponse()
        said = answer.read(OUTPUT_BYTES_MAX)
    except (OSError, http.client.HTTPException) as error:
        problem = str(error) or type(error).__name__
        raise HookFailed(f"{parts.hostname} does not answer as it should: {problem}") from error
    finally:
        limit.cancel()
        connection.close()
    if not 200 <= answer.status < 300:
        raise HookFailed(f"{parts.hostname} answered {answer.status}: {_readable(said)}")


def _cut(connection: http.client.HTTPConnection) -> None:
    sock = connection.sock
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(2)


def _readable(said: bytes) -> str:
    return " ".join(said.decode(errors="replace").split())[-200:]
