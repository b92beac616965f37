"""The log of a daemon: structlog, as JSON lines or readable ones.

Both programs import this module before any other, because structlog imports rich where there is one, for the traceback
of a terminal: 60 ms of every command's start and 4 MB of every daemon that draws no screen.
"""

from __future__ import annotations

import io
import logging
import sys
from contextlib import suppress
from typing import IO, Any, TextIO, cast

_HIDDEN = {} if "rich" in sys.modules else {"rich": None}
sys.modules.update(_HIDDEN)  # type: ignore[arg-type]
import structlog  # noqa: E402

for _name in _HIDDEN:
    del sys.modules[_name]

VALUE_CHARS_MAX = 1_000


def configure_logs(*, debug: bool = False) -> None:
    """JSON lines to stderr, or readable ones on a terminal; a log that cannot be written never stops the work."""
    readable = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if readable else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _cap_values,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debug else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Unfailing(sys.stderr))),
        cache_logger_on_first_use=True,
    )


class _Unfailing(io.TextIOBase):
    """A text stream whose full disk or closed pipe is nobody's problem."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            return 0

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def _cap_values(_logger: Any, _method: str, event: Any) -> Any:
    for key, value in event.items():
        if isinstance(value, str) and len(value) > VALUE_CHARS_MAX:
            event[key] = value[:VALUE_CHARS_MAX] + "..."
    return event
