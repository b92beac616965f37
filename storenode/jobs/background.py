"""Work beside the writer: a thread for each kind of it, so that one that hangs holds up none of the others."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Does each kind of work once at a time; asked for again meanwhile, it is done once more afterwards."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, Callable[[], None] | None] = {}

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Have `work` done; it must not raise. What is still waiting of the same name is replaced."""
        with self._lock:
            busy = name in self._waiting
            self._waiting[name] = work if busy else None
        if not busy:
            # Threads that a stop does not wait for: nothing that they do is lost by dying.
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
