"""Where the API may listen and whom it serves: addresses, names, and what the settings make of them."""

from __future__ import annotations

import pytest

from storenode.config import Settings, load
from storenode.core.api_address import Address, host_of, hosts_allowed, parsed, refusal
from storenode.errors import BadSettings


@pytest.mark.parametrize(
    ("text", "address", "is_local"),
    [
        ("127.0.0.1:8417", Address("127.0.0.1", 8417), True),
        ("127.9.9.9:1", Address("127.9.9.9", 1), True),
        ("localhost:65535", Address("localhost", 65535), True),
        ("[::1]:8417", Address("::1", 8417), True),
        ("unix:/run/storenode/api.sock", Address(path="/run/storenode/api.sock"), True),
        ("0.0.0.0:8417", Address("0.0.0.0", 8417), False),
        ("[::]:8417", Address("::", 8417), False),
        ("[0:0::0]:8417", Address("::", 8417), False),
        ("192.0.2.7:80", Address("192.0.2.7", 80), False),
        ("Till.Example:80", Address("till.example", 80), False),
        ("localhost.evil:80", Address("localhost.evil", 80), False),
    ],
)
def test_an_address_is_read_and_is_local_or_not(text: str, address: Address, is_local: bool) -> None:
    assert parsed(text) == address
    assert parsed(str(address)) == address
    assert address.is_local == is_local
    assert (refusal(address, ()) is None) == is_local
    assert refusal(address, (address.host,)) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "8417",
        ":8417",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:+1",
        "::1:8417:",
        "a b:80",
        "a/b:80",
        "user@host:80",
        "unix:",
        "unix:api.sock",
        "unix:/a\0b",
        "unix:/" + "x" * 107,
        "http://a:80",
        "[::1:80",
        "127.0.0.1:٣",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must|not a host"):
        parsed(text)


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8417", "localhost"),
        ("127.0.0.1:8417", "127.0.0.1"),
        ("[::1]:8417", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("till.example:", "till.example"),
        ("", None),
        ("::1", None),
        ("localhost:80:80", None),
        ("localhost:port", None),
        ("user@localhost", None),
        ("localhost, evil", None),
        ("localhost/..", None),
        ("[localhost]", None),
        ("a" * 300, None),
        ("lоcalhost", None),
    ],
)
def test_the_host_of_a_header_is_its_name_without_the_port(header: str, host: str | None) -> None:
    assert host_of(header) == host


def test_served_are_the_loopback_the_own_address_and_what_the_settings_name() -> None:
    assert hosts_allowed(parsed("192.0.2.7:80"), ("till.example",)) == {
        "localhost",
        "127.0.0.1",
        "::1",
        "192.0.2.7",
        "till.example",
    }
    assert hosts_allowed(parsed("unix:/a"), ()) == {"localhost", "127.0.0.1", "::1"}


def test_the_settings_name_an_address_and_hosts_and_nothing_means_off() -> None:
    assert (Settings().api, load({"STORENODE_API": ""}).api) == (None, None)
    found = load({"STORENODE_API": "192.0.2.7:80", "STORENODE_API_HOSTS": "192.0.2.7, Till.example"})
    assert (found.api, found.api_hosts) == (Address("192.0.2.7", 80), ("192.0.2.7", "till.example"))


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"STORENODE_API": "8417"}, "STORENODE_API: '8417' must be host:port"),
        ({"STORENODE_API": "0.0.0.0:8417"}, "STORENODE_API: 0.0.0.0:8417 can be reached from other machines"),
        ({"STORENODE_API_HOSTS": "a b"}, "STORENODE_API_HOSTS: 'a b' is not a host's name"),
    ],
)
def test_a_mistake_in_the_settings_is_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(BadSettings, match=message.replace(".", r"\.")):
        load(environ)
