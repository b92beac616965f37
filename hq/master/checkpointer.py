"""The thread of `hq run` that moves the master's write-ahead log into the file; publishing never waits for it."""

from __future__ import annotations

import threading
from pathlib import Path

from hq.errors import HqError
from hq.master.store import Master
from storelink.contract.contexts import Contexts
from storelink.host.logs import get_logger

log = get_logger()

LOOK_EVERY_S = 0.5
WAIT_MS = 2_000
"""How long it queues for the write lock; without, it would never come about between writers that never pause."""


class Checkpointer(threading.Thread):
    """Has connections of its own; holds writers off for as long as the copying takes. A crash loses nothing."""

    def __init__(self, path: Path, contexts: Contexts) -> None:
        super().__init__(name="checkpointer", daemon=True)
        self._path, self._contexts = path, contexts
        self._stopping = threading.Event()

    def run(self) -> None:
        with Master(self._path, self._contexts) as master:
            while not self._stopping.wait(LOOK_EVERY_S):
                try:
                    master.checkpoint(WAIT_MS)
                except (HqError, OSError) as error:
                    log.warning("checkpoint.failed", reason=str(error))

    def stop(self) -> None:
        """Let a copying that is under way end, and nothing more begin."""
        self._stopping.set()
        if self.is_alive():
            self.join()
