"""How fast a catch-up may ask for segments, so that a thin line still carries payments and live changes."""

from __future__ import annotations

BURST_MS = 1_000
"""What a rested line may be asked for at once, in time at its cap."""


class Pace:
    """
    An account in bytes that fills at `max_kbps` and may be overdrawn by one request at a time.

    Over any long time no more is asked for than the cap allows; at once, one segment more than BURST_MS of it at most.

    Args:
        max_kbps: thousands of bits a second; 0 for no cap.
    """

    def __init__(self, max_kbps: int = 0) -> None:
        self._bytes_per_s = max_kbps * 125
        self._balance_bytes = 0
        self._at_ms: int | None = None

    def allows(self, mono_ms: int) -> bool:
        """Whether something may be asked for now."""
        if not self._bytes_per_s:
            return True
        if self._at_ms is None:
            self._at_ms = mono_ms
        earned = (mono_ms - self._at_ms) * self._bytes_per_s // 1000
        if earned > 0:
            self._at_ms = mono_ms
            self._balance_bytes = min(self._balance_bytes + earned, BURST_MS * self._bytes_per_s // 1000)
        return self._balance_bytes >= 0

    def charge(self, size_bytes: int) -> None:
        """Something of this size is on its way."""
        if self._bytes_per_s:
            self._balance_bytes -= size_bytes
