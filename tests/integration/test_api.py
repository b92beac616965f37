"""The local API as a till meets it: a real server process, real HTTP, a real replica."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import jsonschema_rs
import pytest

from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream
from storelink.host.locks import lock_instance
from storenode.outbox.store import Outbox
from storenode.replica.writer import Replica
from testbed.process import until
from tests.integration.apiserver import MILK_LINE, PRICE, PRODUCT, ApiServer, filled, put

MILK_PRICE = {
    "sku": "4011",
    "amount_minor": 199,
    "currency": "EUR",
    "kind": "regular",
    "scope": "all",
    "starts_at": "2023-11-14T22:13:20Z",
    "ends_at": "2027-01-15T08:00:00Z",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def replica(place: Path) -> Iterator[Replica]:
    """A new replica, in place of the last test's, whose daemon is at work: somebody holds its lock."""
    for left in place.glob("*.db*"):
        left.unlink()
    replica = filled(place / "replica.db")
    lock = lock_instance(Path(f"{replica.path}.lock"))
    assert lock is not None
    with lock, closing(replica.connection):
        yield replica


@pytest.fixture(scope="module")
def shared(place: Path) -> Iterator[ApiServer]:
    """One server for all tests that do not end it: it opens each test's replica by itself."""
    server = ApiServer(place / "replica.db")
    yield server
    assert server.stop() == 0
    assert server.events() == ["api.started", "api.stopped"]


@pytest.fixture
def till(shared: ApiServer, replica: Replica) -> Iterator[httpx.Client]:
    with shared.client() as client:
        yield client


@pytest.fixture
def server(replica: Replica) -> Iterator[ApiServer]:
    """A server of the test's own."""
    server = ApiServer(replica.path)
    yield server
    server.stop(signal.SIGKILL)


def test_a_product_is_found_by_sku_and_by_gtin_with_its_price(till: httpx.Client) -> None:
    milk = dict.fromkeys(
        ("description", "brand", "department", "category", "product_type", "pack_size", "uom", "manufacturer", "status")
    ) | {
        "scope": "all",
        "seq": 1,
        "sku": "4011",
        "gtin": "4006381333931",
        "name": "Organic Milk",
        "attributes": {"organic": True},
        "price": MILK_PRICE,
    }
    answer = till.get("/products/4011")
    assert (answer.status_code, answer.json()) == (200, milk)
    bread = till.get("/products/40%2F12").json()
    assert (bread["name"], bread["price"]) == ("Rye Bread", None)
    assert till.get("/products?gtin=4006381333931").json() == {"products": [bread, milk]}
    assert till.get("/products?gtin=1").json() == {"products": []}


@pytest.mark.parametrize(
    ("query", "amount_minor"),
    [("", 199), ("?at=2027-01-15T07:59:59Z", 199), ("?at=2027-01-15T09:00:00%2B01:00", 179), ("?at=2023-11-15", 199)],
)
def test_a_price_is_told_now_and_at_any_time(till: httpx.Client, query: str, amount_minor: int) -> None:
    found = till.get(f"/prices/4011{query}").json()
    assert (list(found), found["amount_minor"]) == (list(MILK_PRICE), amount_minor)


def test_the_most_specific_scope_wins(till: httpx.Client, replica: Replica) -> None:
    put(replica, Stream.parse("price/zone-west", BUILT_IN), [(1, "4011", "regular", "EUR", "[[1700000000,null,150]]")])
    assert till.get("/prices/4011").json() == MILK_PRICE | {"amount_minor": 150, "scope": "zone-west", "ends_at": None}


def test_a_search_folds_accents_and_is_limited(till: httpx.Client, replica: Replica) -> None:
    put(replica, PRODUCT, [(3, "7", None, "Crème fraîche", *(None,) * 10), (4, "8", None, "Cream", *(None,) * 10)])
    replica.feed_search()
    found = till.get("/search", params={"q": "creme FR"}).json()["products"]
    assert [list(f) for f in found] == [
        ["sku", "gtin", "name", "brand", "pack_size", "department", "category", "amount_minor", "currency"]
    ]
    assert [(f["sku"], f["name"], f["amount_minor"]) for f in found] == [("7", "Crème fraîche", None)]
    assert len(till.get("/search?q=cr&limit=1").json()["products"]) == 1
    assert till.get("/search", params={"q": '"*( -'}).json() == {"products": []}


def test_freshness_health_and_status_tell_the_same_state(till: httpx.Client, replica: Replica) -> None:
    found = till.get("/freshness").json()
    assert (found["state"], found["clock"]) == ("live", "unconfirmed")
    assert list(found["streams"]) == ["price/all", "price/zone-west", "product/all"]
    stream = found["streams"]["product/all"]
    assert stream.pop("as_of").endswith("Z")
    assert stream.pop("stale_seconds") <= 30
    assert stream == {"state": "live", "position": 2, "head_seq": 2, "lag_events": 0}
    assert till.get("/health?fresh=1").json() == {"state": "live", "usable": True, "fresh": True}
    status = till.get("/status").json()
    assert (status["state"], status["store_id"], status["pid"]) == ("live", "store-7", os.getpid())
    assert status["outbox"] == {"pending": 0, "oldest_age_seconds": None, "acked_seq": 0, "refused": 0}
    replica.note(PRICE, state="catching_up", head_seq=9, as_of_ms=None)
    assert till.get("/health").json() == {"state": "catching_up", "usable": True, "fresh": False}
    stale = till.get("/health?fresh=1")
    assert (stale.status_code, stale.json()["error"]["code"]) == (503, "not_fresh")
    replica.note(PRICE, state="diverged", head_seq=9, as_of_ms=None)
    unusable = till.get("/health")
    assert (unusable.status_code, unusable.json()["error"]["code"]) == (503, "not_usable")


def test_without_a_daemon_the_store_is_offline_at_once_and_still_answers(tmp_path: Path) -> None:
    with closing(filled(tmp_path / "replica.db").connection):
        server = ApiServer(tmp_path / "replica.db")
        with server.client() as till:
            assert till.get("/freshness").json()["state"] == "offline"
            assert till.get("/health").json() == {"state": "offline", "usable": True, "fresh": False}
            assert till.get("/prices/4011").json() == MILK_PRICE
        server.stop()


def test_an_answer_that_a_client_has_is_not_sent_again(till: httpx.Client, replica: Replica) -> None:
    for path in ("/products/4011", "/products?gtin=4006381333931", "/prices/4011", "/search?q=milk", "/openapi.json"):
        first = till.get(path)
        tag = first.headers["etag"]
        assert tag.startswith('W/"')
        for named in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
            again = till.get(path, headers={"if-none-match": named})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag), path
        assert till.get(path, headers={"if-none-match": '"other"'}).status_code == 200
    known = {"if-none-match": till.get("/products/4011").headers["etag"]}
    put(replica, PRODUCT, [(3, "7", None, "Another", *(None,) * 10)])
    assert till.get("/products/4011", headers=known).status_code == 304, "the stream moved, this product did not"
    put(replica, PRODUCT, [(4, "4011", None, "Milk", *(None,) * 10)])
    assert till.get("/products/4011", headers=known).json()["name"] == "Milk"
    known = {"if-none-match": till.get("/products/4011").headers["etag"]}
    put(replica, PRICE, [(2, *MILK_LINE[1:4], "[[1700000000,null,201]]")])
    assert till.get("/products/4011", headers=known).json()["price"]["amount_minor"] == 201


def test_the_next_step_of_a_schedule_is_a_new_answer_though_nothing_was_applied(
    till: httpx.Client, replica: Replica
) -> None:
    turn_s = int(time.time()) + 2
    put(replica, PRICE, [(2, *MILK_LINE[1:4], f"[[1700000000,{turn_s},500],[{turn_s},null,400]]")])
    for path in ("/prices/4011", "/products/4011", "/search?q=milk"):
        assert "500" in till.get(path).text, path
    known = {p: till.get(p).headers["etag"] for p in ("/prices/4011", "/products/4011", "/search?q=milk")}
    until(lambda: till.get("/prices/4011").json()["amount_minor"] == 400, "the step has begun", 10)
    for path, tag in known.items():
        again = till.get(path, headers={"if-none-match": tag})
        assert (again.status_code, "400" in again.text) == (200, True), path


def test_an_entry_is_accepted_once_it_is_on_disk(server: ApiServer) -> None:
    text = '{"type": "sale.total", "data": {"minor": 1299, "rate": 1.10}}'
    with server.client() as till:
        answer = till.post("/outbox", content=text, headers={"content-type": "application/json; charset=utf-8"})
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    with Outbox(server.outbox) as outbox:
        epoch, (entry,) = outbox.standing().epoch, outbox.after(0, 10)[0]
    assert answer.status_code == 201
    assert answer.json() == {
        "epoch": epoch,
        "seq": 1,
        "type": "sale.total",
        "time": answer.json()["time"],
    }
    assert (entry.seq, entry.type, entry.data) == (1, "sale.total", '{"minor":1299,"rate":1.10}')


def test_what_was_answered_with_201_survives_kill_9_of_the_api_under_load(server: ApiServer) -> None:
    accepted: list[int] = []

    def post(number: int) -> None:
        with server.client() as till:
            for n in range(1000):
                try:
                    answer = till.post("/outbox", json={"type": "t", "data": number * 1000 + n})
                except httpx.HTTPError:
                    return
                assert answer.status_code == 201, answer.text
                accepted.append(number * 1000 + n)

    tills = [threading.Thread(target=post, args=(number,)) for number in range(4)]
    for each in tills:
        each.start()
    until(lambda: len(accepted) > 40, "some were accepted")
    server.stop(signal.SIGKILL)
    for each in tills:
        each.join()
    with Outbox(server.outbox) as outbox:
        held = [json.loads(entry.data) for entry in outbox.after(0, 1000)[0]]
    assert set(accepted) <= set(held)
    assert len(held) == len(set(held)) <= len(accepted) + len(tills)


def test_entries_go_where_the_outbox_is_now(shared: ApiServer, till: httpx.Client) -> None:
    """An outbox that was moved away is nobody's: what went into it would be lost, though it was acknowledged."""
    assert till.post("/outbox", json={"type": "t", "data": 1}).json()["seq"] == 1
    for file in shared.outbox.parent.glob("outbox.db*"):
        file.rename(file.with_name(f"old-{file.name}"))
    Outbox(shared.outbox).close()
    assert till.post("/outbox", json={"type": "t", "data": 2}).json()["seq"] == 1
    with Outbox(shared.outbox) as outbox:
        assert [entry.data for entry in outbox.after(0, 10)[0]] == ["2"]


def test_a_full_outbox_refuses_and_says_so(replica: Replica) -> None:
    server = ApiServer(replica.path, STORENODE_OUTBOX_MAX_BYTES="200000")
    with server.client() as till:
        answers = [till.post("/outbox", json={"type": "t", "data": "x" * 20_000}) for _ in range(12)]
    server.stop()
    assert answers[0].status_code == 201
    assert (answers[-1].status_code, answers[-1].json()["error"]["code"]) == (503, "outbox_full")
    assert answers[-1].headers["retry-after"] == "1"


def test_no_replica_yet_is_503_and_the_first_one_is_found(tmp_path: Path) -> None:
    server = ApiServer(tmp_path / "replica.db")
    with server.client() as till:
        for path in ("/products/1", "/products?gtin=1", "/prices/1", "/search?q=a", "/freshness", "/status", "/health"):
            answer = till.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "replica_missing"), path
        assert "storenode_replica_up 0\n" in till.get("/metrics").text
        with closing(filled(tmp_path / "replica.db").connection):
            assert till.get("/prices/4011").json() == MILK_PRICE
    server.stop()


def test_a_replica_that_was_replaced_is_opened_anew(till: httpx.Client, replica: Replica) -> None:
    assert [till.get("/prices/4011").status_code for _ in range(8)] == [200] * 8
    assert [till.get("/search?q=milk").status_code for _ in range(8)] == [200] * 8
    for suffix in ("-wal", "-shm", ""):
        Path(f"{replica.path}{suffix}").rename(f"{replica.path}.damaged-1{suffix}")
    assert till.get("/prices/4011").json()["error"]["code"] == "replica_missing"
    with closing(Replica.open(replica.path, ("all",), BUILT_IN).connection) as db:
        assert till.get("/prices/4011").json()["error"]["code"] == "not_found"
        assert till.get("/search?q=milk").json() == {"products": []}
        assert till.get("/freshness").json()["state"] == "bootstrapping"
        assert db.execute("SELECT count(*) FROM prices").fetchone() == (0,)


def test_a_file_that_is_no_replica_is_503(tmp_path: Path) -> None:
    (tmp_path / "replica.db").write_bytes(b"SQLite format 3\0" + b"garbage" * 1000)
    server = ApiServer(tmp_path / "replica.db")
    with server.client() as till:
        answer = till.get("/prices/4011")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "replica_damaged")
    server.stop()


def test_a_question_that_takes_too_long_is_ended_and_others_are_answered_meanwhile(
    till: httpx.Client, shared: ApiServer, replica: Replica
) -> None:
    replica.connection.executescript(
        "DROP VIEW freshness; CREATE VIEW freshness AS WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n)"
        " SELECT 'x' || i AS stream, 'live' AS state, 0 AS position, 0 AS head_seq, 0 AS lag_events, '' AS as_of,"
        " 0 AS stale_seconds FROM n WHERE random() IS NULL"
    )
    ended: list[str] = []

    def ask() -> None:
        with shared.client() as another:
            answer = another.get("/status")
            ended.append(f"{answer.status_code} {answer.json()['error']['code']}")

    asking = threading.Thread(target=ask)
    asking.start()
    answered = 0
    while not ended:
        assert till.get("/prices/4011").json() == MILK_PRICE
        answered += not ended
    asking.join()
    assert ended == ["503 deadline"]
    assert answered > 1
    assert till.get("/status").json()["error"]["code"] == "deadline", "the connection is as good as before"
    assert till.get("/search?q=milk").status_code == 200


def test_metrics_are_what_prometheus_reads(server: ApiServer) -> None:
    with server.client() as till:
        till.get("/prices/4011")
        till.get("/prices/none")
        till.post("/outbox", json={"type": "t", "data": None})
        answer = till.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    for line in (
        "storenode_replica_up 1",
        "storenode_daemon_up 1",
        "storenode_connected 1",
        'storenode_events_total{event="batches"} 2',
        'storenode_stream_position{stream="product/all"} 2',
        'storenode_stream_lag_events{stream="price/all"} 0',
        'storenode_stream_state{stream="price/all",state="live"} 1',
        'storenode_stream_state{stream="price/all",state="offline"} 0',
        "storenode_outbox_pending 1",
        'storenode_api_requests_total{route="/prices/{sku}",status="200"} 1',
        'storenode_api_requests_total{route="/prices/{sku}",status="404"} 1',
        'storenode_api_request_seconds_count{route="/prices/{sku}"} 2',
        'storenode_api_request_seconds_bucket{route="/prices/{sku}",le="+Inf"} 2',
    ):
        assert line in lines
    names = {line.partition("{")[0].partition(" ")[0] for line in lines if not line.startswith("#")}
    assert {"storenode_wal_bytes", "storenode_free_bytes", "storenode_stream_stale_seconds"} <= names


def test_over_a_unix_socket_the_group_may_ask_and_a_killed_servers_socket_is_no_obstacle(replica: Replica) -> None:
    path = replica.path.with_name("api.sock")
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0)):
        server = ApiServer(replica.path, f"unix:{path}")
        with server.client() as till:
            assert till.get("/prices/4011").json() == MILK_PRICE
        assert path.stat().st_mode & 0o777 == 0o660
        assert server.stop(number) == code
        assert path.exists() == (number == signal.SIGKILL)
    assert server.events()[-2:] == ["api.started", "api.stopped"]


def test_two_servers_never_share_an_address(shared: ApiServer, replica: Replica, tmp_path: Path) -> None:
    second = ApiServer(replica.path, shared.address)
    assert second.process.wait(20) == 1
    assert "hint: stop the other program" in second.log.read_text()
    (tmp_path / "file").write_text("precious")
    third = ApiServer(replica.path, f"unix:{tmp_path / 'file'}")
    assert third.process.wait(20) == 1
    assert (tmp_path / "file").read_text() == "precious"


def test_the_document_lists_every_route_and_its_examples_are_what_the_schemas_say(till: httpx.Client) -> None:
    document = till.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            whole = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
            assert jsonschema_rs.is_valid(whole, example), name
    assert till.get("/products/4011").json().keys() == document["components"]["schemas"]["Product"]["properties"].keys()
