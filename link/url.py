"""A broker's address as a URL: `mqtt://host:1883`, `mqtts://user:pw@host:8883`."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from link.errors import BadBrokerUrl

PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """Where a broker is and who asks; shown without its password."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = None

    @classmethod
    def parse(cls, text: str) -> BrokerUrl:
        """Read a URL. Raises BadBrokerUrl."""
        hint = "give it as mqtt://host:1883 or mqtts://user:password@host:8883"
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise BadBrokerUrl(f"broker address cannot be read: {error}", hint=hint) from error
        if parts.scheme not in PORTS or not parts.hostname or parts.path not in ("", "/") or parts.query:
            raise BadBrokerUrl("broker address is not a URL of the form mqtt://host:port", hint=hint)
        return cls(
            host=parts.hostname,
            port=PORTS[parts.scheme] if port is None else port,
            tls=parts.scheme == "mqtts",
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
        )

    def __str__(self) -> str:
        who = f"{self.username}@" if self.username else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{who}{host}:{self.port}"

    def __repr__(self) -> str:
        return f"BrokerUrl({self})"
