"""A stream's way to the broker, as the publisher sees it: its outlet, and what is waited for."""

from __future__ import annotations

from dataclasses import dataclass

from hq.publish.broker_check import BrokerCheck
from hq.publish.stream_publisher import StreamPublisher


@dataclass(slots=True)
class Route:
    """Owned by the publisher's thread. `audit_until_ms`: until then the broker may show the head that it keeps."""

    outlet: StreamPublisher
    audit_until_ms: int | None = None
    inspection: BrokerCheck | None = None
    next_head_ms: int = 0
    next_heartbeat_ms: int = 0
    next_clearing_ms: int = 0
    segments_sent: set[tuple[int, int, str]] | None = None
    unsent: list[tuple[int, int, str]] | None = None
    sealed: bool = False

    def rewind(self) -> None:
        """The line broke."""
        self.outlet.rewind()
        self.inspection = None
        self.segments_sent = None
        self.sealed = False
