"""Points in time as people write them (RFC 3339, or a date) to whole seconds since 1970, UTC."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[Tt ](\d{2}:\d{2})(:\d{2})?(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2}))?", re.ASCII
)


def epoch_seconds(text: str) -> int:
    """
    Read `2026-12-24`, `2026-12-24T18:00:00Z` or `2026-12-24T18:00+01:00`; a date alone is midnight UTC.

    Raises:
        ValueError: anything else; a time needs its offset, since a store's and HQ's clocks may differ by zone.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        lacks = re.fullmatch(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}[\d:.]*", text)
        raise ValueError(
            f"{text[:40]!r} lacks Z or an offset such as +01:00"
            if lacks
            else f"{text[:40]!r} is not a time such as 2026-12-24T18:00:00Z or 2026-12-24"
        )
    date, minutes, seconds, fraction, offset = found.groups()
    if fraction and fraction.strip("0"):
        raise ValueError(f"{text!r} is finer than a second")
    try:
        zone = "+00:00" if offset in (None, "Z", "z") else offset
        moment = datetime.fromisoformat(f"{date}T{minutes or '00:00'}{seconds or ':00'}{zone}").astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is no time: {error}") from None
    at = int(moment.timestamp())
    if at < 0:
        raise ValueError(f"{text!r} is before 1970")
    return at


def rfc3339(ms: int) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC, to the second below."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms // 1000))
