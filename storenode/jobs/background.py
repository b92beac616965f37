"""Work in the background of the writer: a thread for each kind, so that one that hangs delays none of the others."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Does each kind of work once at a time; work that is asked for meanwhile is done once more afterwards."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, Callable[[], None] | None] = {}

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Have `work` done by a thread of this name; it must not raise. It replaces what still waits of this name."""
        with self._lock:
            busy = name in self._waiting
            self._waiting[name] = work if busy else None
        if not busy:
            # A daemon thread: a stop does not wait for it, and nothing that it does is lost by dying.
            threading.Thread(target=self._work, args=(name, work), name=name, daemon=True).start()

    def _work(self, name: str, work: Callable[[], None]) -> None:
        following: Callable[[], None] | None = work
        while following is not None:
            following()
            with self._lock:
                following = self._waiting[name]
                if following is None:
                    del self._waiting[name]
                else:
                    self._waiting[name] = None
