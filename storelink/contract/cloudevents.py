"""CloudEvents 1.0 in MQTT's binary mode: attributes are MQTT 5 user properties, data is the payload.

Source: CloudEvents "MQTT Protocol Binding" 1.0.2, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from storelink.contract.streams import rfc3339

SPEC_VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class Message:
    """One MQTT PUBLISH: what `contract` makes and `link` carries. An empty retained payload clears the topic."""

    topic: str
    payload: bytes
    retain: bool = False
    content_type: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


def attributes_of(root: str, kind: str, subject: str, ident: str, at_ms: int) -> dict[str, str]:
    """The context attributes of one event; `ident` is unique within its source."""
    return {
        "specversion": SPEC_VERSION,
        "id": ident,
        "source": f"/{root}/{subject}",
        "type": f"io.storenode.{kind}.v1",
        "subject": subject,
        "time": rfc3339(at_ms),
    }
