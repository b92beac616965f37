"""A moment as a person or a program writes it, in seconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime

from storenode.errors import BadArgument


def seconds_of(text: str) -> int:
    """Read an RFC 3339 time, or a date (its beginning in UTC). Raises BadArgument."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadArgument(f"{text!r} is not a time", hint="as in 2026-12-24T08:00:00Z") from None
    if found.tzinfo is None:
        if ":" in text:
            raise BadArgument(f"{text!r} does not say in which time zone", hint="end it in Z or +01:00")
        found = found.replace(tzinfo=UTC)
    return int(found.timestamp())
