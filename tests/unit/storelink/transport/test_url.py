"""Broker URLs: what is read, what is refused, and that no password is ever shown."""

from __future__ import annotations

import pytest

from storelink.errors import BadBrokerUrl, StorelinkError
from storelink.transport.url import BrokerUrl


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mqtt://localhost", BrokerUrl("localhost", 1883)),
        ("mqtt://localhost/", BrokerUrl("localhost", 1883)),
        ("mqtt://10.0.0.1:18830", BrokerUrl("10.0.0.1", 18830)),
        ("mqtts://hq.example", BrokerUrl("hq.example", 8883, True)),
        ("mqtts://store-7:pw@hq.example:443", BrokerUrl("hq.example", 443, True, "store-7", "pw")),
        ("mqtt://u:p%40%2Fs%3As@h", BrokerUrl("h", 1883, False, "u", "p@/s:s")),
        ("mqtt://u@h", BrokerUrl("h", 1883, False, "u", None)),
        ("mqtt://u:@h", BrokerUrl("h", 1883, False, "u", "")),
        ("mqtt://[::1]:1884", BrokerUrl("::1", 1884)),
    ],
)
def test_a_url_is_read_whole(text: str, expected: BrokerUrl) -> None:
    assert BrokerUrl.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "localhost:1883",
        "http://localhost",
        "mqtt://",
        "mqtt://:1883",
        "mqtt://h:0",
        "mqtt://h:65536",
        "mqtt://h:port",
        "mqtt://h:-1",
        "mqtt://h/topic",
        "mqtt://h?x=1",
        "mqtt://h#x",
        "mqtt://:pw@h",
        "mqtt://h:1883 ",
        "mqtt://h\n:1883",
        "mqtt://[::1",
        "mqtt://u:s3cret#x@h",
        "mqtt://u:s3cret/x@h",
        "u:s3cret@h",
        "s3cret://h/s3cret"[6:],
    ],
)
def test_anything_else_is_refused_with_a_hint_and_without_the_password(text: str) -> None:
    with pytest.raises(BadBrokerUrl) as caught:
        BrokerUrl.parse(text)
    assert isinstance(caught.value, StorelinkError)
    assert "mqtt://host:1883" in caught.value.hint
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mqtt://h", "mqtt://h:1883"),
        ("mqtts://u:s3cret@h:1", "mqtts://u:***@h:1"),
        ("mqtt://a%2Fb@[::1]", "mqtt://a%2Fb@[::1]:1883"),
    ],
)
def test_it_is_shown_without_its_password(text: str, shown: str) -> None:
    url = BrokerUrl.parse(text)
    assert str(url) == shown
    assert "s3cret" not in repr(url)
