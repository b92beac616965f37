"""What must not hurt the local API: foreign pages, nonsense, floods, clients that are slow on purpose."""

from __future__ import annotations

import json
import random
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from storenode.api.limits import BODY_BYTES_MAX, CONNECTIONS_MAX, REQUEST_S, TARGET_BYTES_MAX
from storenode.outbox.store import Outbox
from storenode.replica.writer import Replica
from testbed.broker import free_port
from testbed.process import until
from tests.integration.apiserver import ApiServer, filled

WITHIN_S = 20.0
JSON = {"content-type": "application/json"}
POST = b"POST /outbox HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    replica = filled(tmp_path_factory.mktemp("api") / "replica.db")
    with closing(replica.connection):
        yield replica


@pytest.fixture(scope="module")
def server(replica: Replica) -> Iterator[ApiServer]:
    """One for all of them: it must be as good after each test as before."""
    server = ApiServer(replica.path)
    yield server
    assert server.stop() == 0
    assert set(server.events()) == {"api.started", "api.stopped"}, "nothing here is worth a line in the log"


@pytest.fixture
def till(server: ApiServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client
        assert client.get("/prices/4011").status_code == 200


def sent(server: ApiServer, *parts: bytes) -> bytes:
    """What comes back for bytes, until the server closes."""
    with server.connection() as connection:
        connection.settimeout(WITHIN_S)
        for part in parts:
            connection.sendall(part)
        return received(connection)


def received(connection: socket.socket) -> bytes:
    found = b""
    while True:
        try:
            part = connection.recv(65_536)
        except ConnectionResetError:
            return found
        if not part:
            return found
        found += part


def descriptors(server: ApiServer) -> int:
    """How many files and sockets the server holds."""
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a refusal as documented; returns its `error`."""
    assert answer.status_code == status
    found: dict[str, Any] = answer.json()
    assert list(found) == ["error"]
    assert list(found["error"]) == ["code", "message", "hint"]
    assert found["error"]["code"] == code
    return found["error"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/prices/4011?at=noon", "'noon' is not a time"),
        ("/prices/4011?at=2026-01-01T08:00", "lacks Z or an offset"),
        ("/prices/4011?at=2026-01-01T08:00:00+01:00", "is not a time"),
        ("/prices/4011?at=", "is not a time"),
        ("/prices/4011?time=2026-01-01", "unknown parameter 'time'"),
        ("/prices/4011?at=2026-01-01&at=2027-01-01", "a parameter occurs twice"),
        ("/products", "gtin must have 1 to 64 characters"),
        ("/products?gtin=", "gtin must have 1 to 64 characters"),
        (f"/products?gtin={'1' * 65}", "gtin must have 1 to 64 characters"),
        ("/search", "q must have 1 to 200 characters"),
        (f"/search?q={'x' * 201}", "q must have 1 to 200 characters"),
        ("/search?q=a&limit=0", "limit: '0' is not a whole number from 1 to 100"),
        ("/search?q=a&limit=101", "limit: '101' is not"),
        ("/search?q=a&limit=-1", "limit: '-1' is not"),
        ("/search?q=a&limit=%D9%A1", "limit: '١' is not"),
        ("/search?q=a&limit=1e1", "limit: '1e1' is not"),
        ("/health?fresh=yes", "fresh: 'yes' is not"),
        ("/freshness?x", "unknown parameter 'x'"),
    ],
)
def test_a_wrong_question_is_a_400_that_says_what_is_wrong(till: httpx.Client, path: str, message: str) -> None:
    assert message in refused(till.get(path), 400, "bad_request")["message"]


def test_a_plus_in_a_time_is_told_how_it_is_written(till: httpx.Client) -> None:
    assert "%2B" in refused(till.get("/prices/4011?at=2026-01-01T08:00:00+01:00"), 400, "bad_request")["hint"]


@pytest.mark.parametrize("at", ["0001-01-01", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00%2B14:00", "1969-12-31"])
def test_the_ends_of_time_are_times(till: httpx.Client, at: str) -> None:
    assert till.get(f"/prices/4011?at={at}").status_code in (200, 404)


@pytest.mark.parametrize(
    "sku", ["", "%00", "%FF", "'", "..", "%2e%2e%2f", "a" * 3000, "%F0%9F%8D%8C", "4011%0A", "%ED%A0%80", "%", "{sku}"]
)
def test_a_strange_sku_is_not_found(till: httpx.Client, sku: str) -> None:
    for route in ("prices", "products"):
        refused(till.get(f"/{route}/x{sku}" if sku == ".." else f"/{route}/{sku}"), 404, "not_found")


def test_unknown_routes_and_methods_are_told_apart(till: httpx.Client) -> None:
    refused(till.get("/"), 404, "not_found")
    refused(till.get("/products/4011/../../etc/passwd%00"), 404, "not_found")
    for method, path in (("POST", "/products/4011"), ("DELETE", "/outbox"), ("GET", "/outbox"), ("PUT", "/health")):
        answer = till.request(method, path)
        refused(answer, 405, "method_not_allowed")
        assert answer.headers["allow"]
    answer = till.head("/prices/4011")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8417",
        "127.0.0.1.evil.example",
        "localhost.evil",
        "[::2]",
        "10.0.0.1",
        "",
        "localhost@evil",
        "localhost:x",
        "127.1",
    ],
)
def test_a_page_whose_name_was_pointed_here_is_refused(till: httpx.Client, host: str) -> None:
    for path in ("/prices/4011", "/nowhere", "/openapi.json"):
        refused(till.get(path, headers={"host": host}), 403, "host_refused")
    refused(till.post("/outbox", json={"type": "t", "data": 1}, headers={"host": host}), 403, "host_refused")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8417", "localhost:8417"])
def test_the_names_of_the_loopback_are_served(till: httpx.Client, host: str) -> None:
    assert till.get("/prices/4011", headers={"host": host}).status_code == 200


def test_a_host_is_named_once(server: ApiServer) -> None:
    twice = sent(server, b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\nConnection: close\r\n\r\n")
    assert twice.split()[1] in (b"400", b"403")
    none = sent(server, b"GET /health HTTP/1.0\r\n\r\n")
    assert none.split()[1] == b"403"


def test_further_hosts_are_served_once_they_are_named(replica: Replica) -> None:
    server = ApiServer(replica.path, STORENODE_API_HOSTS="till.example, 192.0.2.7")
    with server.client() as till:
        codes = [till.get("/health", headers={"host": h}).status_code for h in ("till.example:80", "192.0.2.7", "evil")]
    server.stop()
    assert codes == [200, 200, 403]


def test_it_does_not_listen_where_others_reach_it_unless_told_to(replica: Replica) -> None:
    alone = ApiServer(replica.path, f"0.0.0.0:{free_port()}")
    assert alone.process.wait(WITHIN_S) == 1
    assert "add '0.0.0.0' to api_hosts if that is meant" in alone.log.read_text()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"type":"t"}',
        b'{"data":1}',
        b'{"type":1,"data":1}',
        b'{"type":"t","data":1,"x":1}',
        b'{"type":"t","type":"u","data":1}',
        b'{"type":"t","data":{"a":1,"a":2}}',
        b'{"type":"t","data":NaN}',
        b'{"type":"t","data":1e999}',
        b'{"type":"t","data":9223372036854775808}',
        b'{"type":"t","data":"\\ud800"}',
        b'{"type":"t","data":"\\u0000"}',
        b'{"type":"t","data":"\xff"}',
        b"\xef\xbb\xbf" + b'{"type":"t","data":1}',
        b'{"type":"","data":1}',
        b'{"type":"a b","data":1}',
        b'{"type":"t","data":1}x',
        b'{"type":"../x","data":1}',
        b'{"type":"t","data":' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"type":"t","data":' + b"[" * 60_000,
    ],
)
def test_a_body_that_is_no_entry_is_refused_and_leaves_nothing(
    till: httpx.Client, server: ApiServer, body: bytes
) -> None:
    refused(till.post("/outbox", content=body, headers=JSON), 400, "bad_request")
    if server.outbox.exists():
        with Outbox(server.outbox) as outbox:
            assert outbox.standing().last_seq == 0


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "text/plain; application/json"]
)
def test_only_json_is_taken_because_foreign_pages_cannot_send_it_unasked(till: httpx.Client, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    answer = till.post("/outbox", content=b'{"type":"t","data":1}', headers=headers)
    refused(answer, 415, "not_json")
    assert "access-control-allow-origin" not in answer.headers
    asked = till.options("/outbox", headers={"origin": "http://evil", "access-control-request-method": "POST"})
    assert (asked.status_code, "access-control-allow-origin" in asked.headers) == (405, False)


@pytest.mark.parametrize("size_bytes", [BODY_BYTES_MAX + 1, 1_000_000])
def test_a_body_that_is_too_large_is_refused_with_and_without_its_length(till: httpx.Client, size_bytes: int) -> None:
    refused(till.post("/outbox", content=b" " * size_bytes, headers=JSON), 413, "too_large")
    refused(till.post("/outbox", content=iter([b" " * size_bytes]), headers=JSON), 413, "too_large")


def test_the_data_of_an_entry_is_bounded_like_everywhere(till: httpx.Client) -> None:
    body = json.dumps({"type": "t", "data": "x" * 65_536}).encode()
    refused(till.post("/outbox", content=body, headers=JSON), 413, "too_large")


def test_a_body_without_end_is_not_read_without_end(server: ApiServer) -> None:
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    piece = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    with server.connection() as connection:
        connection.settimeout(WITHIN_S)
        connection.sendall(head)
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            for _ in range(10_000):
                connection.sendall(piece)


def test_a_long_target_or_long_headers_are_refused(till: httpx.Client, server: ApiServer) -> None:
    refused(till.get(f"/search?q={'x' * TARGET_BYTES_MAX}"), 414, "uri_too_long")
    flood = b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"y" * 100_000
    answer = sent(server, flood)
    assert answer.split()[1] == b"400"
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"


def test_nonsense_of_any_kind_is_answered_or_closed(server: ApiServer, till: httpx.Client) -> None:
    rng = random.Random(20261125)
    good = POST + b"Content-Length: 2\r\n\r\n[]"
    for _ in range(150):
        noise = bytearray(good)
        for _ in range(rng.randrange(1, 8)):
            place = rng.randrange(len(noise))
            noise[place : place + rng.randrange(3)] = rng.randbytes(rng.randrange(4))
        with server.connection() as connection:
            connection.settimeout(WITHIN_S)
            connection.sendall(bytes(noise))
            connection.shutdown(socket.SHUT_WR)
            received(connection)
    assert till.get("/health").status_code == 200


def test_requests_in_one_packet_are_each_answered(server: ApiServer) -> None:
    one = b"GET /prices/4011 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert sent(server, one * 20 + last).count(b'"amount_minor":199') == 21
    assert sent(server, one * 2_000 + last).count(b'"amount_minor":199') == 2_001


def test_a_client_that_would_rather_speak_http_2_is_answered_and_goes_on(server: ApiServer) -> None:
    """Java's asks so in the first request of each connection, be it GET or POST."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    body = b'{"type":"t","data":1}'
    head = POST + upgrade + b"Content-Length: %d\r\n\r\n" % len(body)
    plain = b"GET /prices/4011 HTTP/1.1\r\nHost: localhost\r\n"
    with server.connection() as connection:
        connection.settimeout(WITHIN_S)
        for request, code in (
            (plain + upgrade + b"\r\n", b"200"),
            (plain + b"\r\n", b"200"),
            (head + body, b"201"),
            (plain + upgrade + b"\r\n", b"200"),
            (plain + b"\r\n", b"200"),
        ):
            connection.sendall(request)
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(10_000)
            assert answer.split()[1] == code


@pytest.mark.parametrize("line", [b"HEAD /prices/4011", b"GET /prices/4011"])
def test_an_answer_without_a_body_is_there_at_once(server: ApiServer, till: httpx.Client, line: bytes) -> None:
    known = till.get("/prices/4011").headers["etag"].encode()
    request = line + b" HTTP/1.1\r\nHost: localhost\r\n"
    request += b"" if line.startswith(b"HEAD") else b"If-None-Match: " + known + b"\r\n"
    with server.connection() as connection:
        connection.settimeout(WITHIN_S)
        connection.sendall(request + b"\r\n")
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += connection.recv(10_000)
        assert answer.split()[1] == (b"200" if line.startswith(b"HEAD") else b"304")


def test_hundreds_of_idle_and_slow_clients_keep_nobody_from_being_served(server: ApiServer, till: httpx.Client) -> None:
    half = b"GET /prices/4011 HTTP/1.1\r\nHost: localhost\r\nX-A: "
    deaf = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1_000
    beginnings = (b"", b"GET /pri", half, POST + b"Content-Length: 9\r\n\r\n{", deaf)
    with ExitStack() as slow:
        connections = [slow.enter_context(server.connection()) for _ in range(CONNECTIONS_MAX + 50)]
        for number, connection in enumerate(connections):
            try:
                connection.sendall(beginnings[number % len(beginnings)])
            except OSError:
                continue  # it made room already
            assert till.get("/prices/4011").status_code == 200
        with server.client() as another:
            assert another.get("/products/4011").status_code == 200
        assert descriptors(server) < CONNECTIONS_MAX + 60


def test_who_never_ends_a_request_or_never_reads_is_ended_while_an_idle_till_is_kept(server: ApiServer) -> None:
    """Bytes that trickle in do not help: what counts is when the request began. Behind an answer there is more time."""
    ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    began_s, before = time.monotonic(), descriptors(server)
    with server.connection() as idle, server.connection() as slow, server.connection() as deaf:
        deaf.setblocking(False)
        deaf.send(ask.replace(b"/health", b"/openapi.json") * 2_000)
        idle.settimeout(WITHIN_S)
        idle.sendall(ask)
        assert b" 200 " in idle.recv(1000)
        slow.setblocking(False)
        ended = False

        def trickled() -> bool:
            nonlocal ended
            try:
                slow.send(b"X-A: b\r\n")
                ended = slow.recv(100) == b""
            except BlockingIOError:
                pass
            except OSError:
                ended = True
            return ended

        slow.send(ask[:30])
        until(trickled, "the server has ended it", REQUEST_S + WITHIN_S)
        until(lambda: time.monotonic() > began_s + REQUEST_S + 1, "a request of the idle one would be ended by now")
        idle.setblocking(False)
        idle.send(ask)
        until(lambda: b" 200 " in _at_hand(idle), "the idle one is answered on its old connection")
        until(lambda: descriptors(server) <= before + 1, "the server holds the idle one and no other")


def _at_hand(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1000)
    except BlockingIOError:
        return b""


def test_a_stop_does_not_wait_for_those_who_hold_connections_open(replica: Replica) -> None:
    server = ApiServer(replica.path)
    with server.connection() as idle, server.connection() as half:
        half.sendall(b"GET /health HTTP/1.1\r\nHost")
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(100)
        assert server.stop(signal.SIGTERM) == 0
