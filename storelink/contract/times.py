"""Points in time: as people write them (RFC 3339, or a date) to whole seconds since 1970 in UTC, and back.

The one parser of both sides. A time without Z or an offset is refused: nobody can know where its clock hangs.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[Tt ](\d{2}:\d{2})(:\d{2})?(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2}))?", re.ASCII
)
_WITHOUT_OFFSET = re.compile(r"\d{4}-?\d{2}-?\d{2}[Tt ]\d{2}[\d:.,]*", re.ASCII)
_SHOWN_CHARS = 40


class BadTime(ValueError):
    """A text is no point in time; `detail` says why, `hint` what to write. As a text, both."""

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__(f"{detail}: {hint}" if hint else detail)
        self.detail, self.hint = detail, hint


def epoch_seconds(text: str, *, any_instant: bool = False) -> int:
    """
    Read `2026-12-24`, `2026-12-24T18:00:00Z` or `2026-12-24T18:00+01:00`; a date alone is midnight UTC.

    Args:
        any_instant: take times before 1970 too, and drop a part of a second: for questions about a time. What is
            stored must be what was written.

    Raises:
        BadTime: anything else, a time without Z or an offset among it.
    """
    found = _TIME.fullmatch(text)
    shown = repr(text[:_SHOWN_CHARS])
    if found is None and _WITHOUT_OFFSET.fullmatch(text):
        raise BadTime(f"{shown} lacks Z or an offset", "end it in Z, or in an offset such as +01:00")
    if found is None:
        raise BadTime(f"{shown} is not a time", "write it as in 2026-12-24T18:00:00Z, or a date as in 2026-12-24")
    date, minutes, seconds, fraction, offset = found.groups()
    if fraction and fraction.strip("0") and not any_instant:
        raise BadTime(f"{shown} is finer than a second")
    try:
        zone = "+00:00" if offset in (None, "Z", "z") else offset
        at = datetime.fromisoformat(f"{date}T{minutes or '00:00'}{seconds or ':00'}{zone}")
        if not any_instant:
            at = at.astimezone(UTC)  # in no year before 1
    except (ValueError, OverflowError) as error:
        raise BadTime(f"{shown} is no time: {error}") from None
    at_s = int(at.timestamp())
    if at_s < 0 and not any_instant:
        raise BadTime(f"{shown} is before 1970")
    return at_s


def rfc3339(ms: int) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC, to the second below."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms // 1000))
