"""The local API as the daemon keeps it: a process of its own, begun anew when it dies, ended with the daemon.

Its own process, because the writer must not share an interpreter with whoever asks. The child's standard input is a
pipe of the daemon's: it closes however the daemon ends, also by SIGKILL, and the child with it.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress

from storelink.host.logs import get_logger
from storelink.host.process import python_command
from storenode.config import Settings, api_environment

log = get_logger()

LOOK_EVERY_MS = 250
AGAIN_AFTER_MS, AGAIN_AFTER_MS_MAX = 1_000, 30_000
SETTLED_MS = 60_000
"""A child that lived so long begins anew after the shortest pause; one that dies sooner, after ever longer ones."""

STOP_S = 5.0


class ApiProcess:
    """Owned by the writer thread, which never waits for it but in `stop`. With no `api` in the settings: nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._began_ms = self._due_ms = 0
        self._again_after_ms = AGAIN_AFTER_MS

    def step(self, mono_ms: int) -> None:
        """Start the process when that is due, and look whether it still lives."""
        if self._settings.api is None or mono_ms < self._due_ms:
            return
        self._due_ms = mono_ms + LOOK_EVERY_MS
        if self._process is None:
            self._start(mono_ms)
        elif (code := self._process.poll()) is not None:
            self._ended(code, mono_ms)

    def stop(self) -> None:
        """End the process and wait for its end; kill it if it does not answer."""
        if self._process is None:
            return
        with suppress(OSError):
            self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._release()

    def _start(self, mono_ms: int) -> None:
        self._began_ms = mono_ms
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this very program
                python_command("storenode.cli", "api", "--supervised"),
                env=api_environment(self._settings),
                stdin=subprocess.PIPE,
            )
        except OSError as error:
            self._ended(str(error), mono_ms)

    def _ended(self, outcome: int | str, mono_ms: int) -> None:
        self._release()
        lived_ms = mono_ms - self._began_ms
        again_in_ms = AGAIN_AFTER_MS if lived_ms >= SETTLED_MS else self._again_after_ms
        self._due_ms, self._again_after_ms = mono_ms + again_in_ms, min(again_in_ms * 2, AGAIN_AFTER_MS_MAX)
        log.warning("api.ended", outcome=outcome, lived_ms=lived_ms, again_in_ms=again_in_ms)

    def _release(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        self._process = None
