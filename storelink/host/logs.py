"""The log of a daemon: structlog, as JSON lines or readable ones.

structlog is imported when a first line is logged, or by `configure_logs`: most commands log nothing, and it takes a
third of their start.
"""

from __future__ import annotations

import io
import logging
import sys
from contextlib import suppress
from functools import cached_property
from types import ModuleType
from typing import IO, Any, TextIO, cast

VALUE_CHARS_MAX = 1_000


class _Logger:
    """A logger of structlog, made at its first use."""

    @cached_property
    def _logger(self) -> Any:
        import structlog

        return structlog.get_logger()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)


def get_logger() -> Any:
    """The logger of a module; `info`, `warning`, `error`, `exception` as in structlog."""
    return _Logger()


def configure_logs(*, debug: bool = False) -> None:
    """JSON lines to stderr, or readable ones on a terminal; a log that cannot be written never stops the work."""
    structlog = _structlog_without_rich()
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


def _structlog_without_rich() -> ModuleType:
    """
    Import structlog, and not rich with it, for a daemon that draws no screen: 60 ms and 4 MB.

    structlog has no setting for it: it imports rich where there is one, for the traceback of a terminal.
    """
    hides = "structlog" not in sys.modules and "rich" not in sys.modules
    if hides:
        sys.modules["rich"] = cast(ModuleType, None)
    try:
        import structlog
    finally:
        if hides:
            del sys.modules["rich"]
    return structlog
