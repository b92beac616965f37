"""The broker's address: one URL, read once and strictly."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from storelink.errors import BadBrokerUrl

PORTS = {"mqtt": 1883, "mqtts": 8883}
_HINT = "give it as mqtt://host:1883 or mqtts://user:password@host:8883"


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """Where the broker is and who we are to it. `str()` and `repr()` never show the password."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> BrokerUrl:
        """
        Read `mqtt://[user[:password]@]host[:port]`, or `mqtts://` for TLS; user and password percent-encoded.

        Raises:
            BadBrokerUrl: says what is wrong, and never repeats the password.
        """
        if any(c.isspace() or not c.isprintable() for c in text):
            raise BadBrokerUrl("the broker's URL holds a blank or a control character", hint=_HINT)
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise BadBrokerUrl("the broker's URL has a host or port that cannot be read", hint=_HINT) from None
        if parts.scheme not in PORTS:
            raise BadBrokerUrl(
                f"the broker's URL must begin with mqtt:// or mqtts://, not {parts.scheme or 'nothing'!r}", hint=_HINT
            )
        if not parts.hostname:
            raise BadBrokerUrl("the broker's URL names no host", hint=_HINT)
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise BadBrokerUrl(
                "the broker's URL goes on after the host and port; encode /, ? and # in a password as %2F, %3F, %23",
                hint=_HINT,
            )
        if port == 0:
            raise BadBrokerUrl("the broker's port must be 1 to 65535", hint=_HINT)
        if parts.password is not None and not parts.username:
            raise BadBrokerUrl("the broker's URL has a password but no user", hint=_HINT)
        return cls(
            parts.hostname,
            PORTS[parts.scheme] if port is None else port,
            parts.scheme == "mqtts",
            unquote(parts.username) if parts.username else None,
            unquote(parts.password) if parts.password is not None else None,
        )

    def __str__(self) -> str:
        user = ""
        if self.username is not None:
            user = quote(self.username, safe="") + (":***" if self.password is not None else "") + "@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{user}{host}:{self.port}"


DEFAULT_BROKER = BrokerUrl("localhost", PORTS["mqtt"])


def broker_setting(value: object) -> BrokerUrl:
    """Read a broker's address among settings. Raises ValueError with the expected form."""
    try:
        return BrokerUrl.parse(value if isinstance(value, str) else "")
    except BadBrokerUrl as error:
        raise ValueError(f"{error}; {error.hint}") from None
