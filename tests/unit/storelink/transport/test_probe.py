"""Why a broker does not let us in, in words."""

from __future__ import annotations

import pytest

from storelink.transport.probe import refused
from storelink.transport.url import BrokerUrl


@pytest.mark.parametrize(
    ("reason", "tls", "said"),
    [
        ("the broker refuses us: Not authorized", False, "it does not let this user in"),
        ("the broker refuses us: Bad user name or password", False, "user or password is wrong"),
        ("SSLError: [SSL: WRONG_VERSION_NUMBER] wrong version number", True, "it does not speak TLS on this port"),
        ("SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED]", True, "not one that this machine trusts"),
        ("ConnectionResetError: [Errno 104] Connection reset by peer", True, "cuts us off as TLS begins"),
        ("connection lost", False, "does not let us in: connection lost"),
    ],
)
def test_a_refusal_is_told_in_words(reason: str, tls: bool, said: str) -> None:
    error = refused(BrokerUrl.parse("mqtts://u:hunter@b" if tls else "mqtt://u:hunter@b"), reason)
    assert said in str(error)
    assert error.todo
    assert "hunter" not in str(error)
