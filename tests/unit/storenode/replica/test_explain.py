"""`storenode explain`: from a price down to the commit that brought it; the provenance behind that."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.streams import Stream
from storelink.contract.times import rfc3339
from storenode.cli import main
from storenode.outbox import overrides
from storenode.outbox.override_copy import OverrideCopy
from storenode.outbox.store import Outbox
from storenode.replica import provenance
from storenode.replica.provenance import CATCH_UP, LIVE, Commit, Provenance, commit_of
from storenode.replica.writer import Replica

ALL, WEST = Stream.parse("price/all", BUILT_IN), Stream.parse("price/zone-west", BUILT_IN)
EPOCH = "000000000001-00000000"
NOW_S = int(time.time())
NOW_MS = NOW_S * 1000


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    replica = Replica.open(tmp_path / "replica.db", ("all", "zone-west"), BUILT_IN)
    yield replica
    replica.connection.close()


def put(
    replica: Replica, stream: Stream, rows: list[Row], *commits: Commit, replace: bool = False, at_ms: int = NOW_MS
) -> None:
    last = commits[-1]
    replica.apply(
        stream,
        epoch=last.epoch,
        position=last.last_seq,
        digest=last.digest,
        head_seq=last.last_seq,
        batches=[(rows, [])],
        replace=replace,
        wall_ms=at_ms,
        commits=commits,
    )


def commit(how: str, first: int, last: int, published_ms: int | None = NOW_MS - 9_000) -> Commit:
    return Commit(how, first, last, EPOCH, f"{last:032x}", published_ms, NOW_MS - 5_000)


def line(seq: int, kind: str, schedule: str, sku: str = "4011") -> Row:
    return (seq, sku, kind, "EUR", schedule)


def typed(replica: Replica, *words: str) -> Result:
    return CliRunner().invoke(main, ["--db", str(replica.path), "explain", *words], env={"STORENODE_CONFIG": ""})


def explained(replica: Replica, *words: str) -> dict[str, Any]:
    done = typed(replica, *words, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_price_is_explained_down_to_the_commit_that_brought_it(replica: Replica) -> None:
    put(replica, ALL, [line(3, "regular", "[[1700000000,null,199]]")], commit(CATCH_UP, 1, 10))
    put(replica, ALL, [line(11, "promotion", f"[[1700000000,{NOW_S + 3_600},149]]")], commit(LIVE, 11, 12))
    found = explained(replica, "4011")
    assert found["price"] == {
        "sku": "4011",
        "amount_minor": 149,
        "currency": "EUR",
        "kind": "promotion",
        "scope": "all",
        "starts_at": "2023-11-14T22:13:20Z",
        "ends_at": rfc3339(NOW_MS + 3_600_000),
    }
    assert found["effective_at"] == rfc3339(NOW_MS)[:-1] + ".000Z", "it held here from when it was applied"
    won, lost = found["candidates"]
    assert (won["won"], won["why"], won["stream"], won["seq"], won["commit"]) == (
        True,
        "a promotion wins over a regular price",
        "price/all",
        11,
        {
            "how": "live",
            "first_seq": 11,
            "last_seq": 12,
            "epoch": EPOCH,
            "digest": f"{12:032x}",
            "published_at": rfc3339(NOW_MS - 9_000)[:-1] + ".000Z",
            "received_at": rfc3339(NOW_MS - 5_000)[:-1] + ".000Z",
            "applied_at": rfc3339(NOW_MS)[:-1] + ".000Z",
        },
    )
    assert (lost["won"], lost["in_force"], lost["commit"]["how"], lost["commit"]["last_seq"]) == (
        False,
        True,
        "catch_up",
        10,
    )
    later = explained(replica, "4011", "--at", rfc3339(NOW_MS + 3_600_000))
    assert (later["price"]["amount_minor"], later["effective_at"]) == (199, rfc3339(NOW_MS + 3_600_000))


def test_the_text_names_winner_reason_and_origin(replica: Replica) -> None:
    put(replica, ALL, [line(3, "regular", "[[1700000000,null,199]]")], commit(CATCH_UP, 1, 10))
    put(replica, WEST, [line(1, "regular", "[[1700000000,null,189]]")], commit(LIVE, 1, 1))
    shown = typed(replica, "4011").stdout
    for part in (
        "4011 costs 1.89 EUR at",
        "->       1.89 EUR",
        "won: the scope zone-west wins over all",
        f"seq 1 of price/zone-west, epoch {EPOCH}; came with 1-1, digest {1:032x}",
        "published live",
        "in a catch-up",
        "rule: a local override wins; then the most specific scope",
    ):
        assert part in shown


def test_an_override_is_explained_by_its_reason(replica: Replica, tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db") as outbox:
        overrides.put(outbox, "4011", 99, "EUR", NOW_S + 3_600, "ripe", NOW_MS)
        OverrideCopy(outbox.path, replica, "store-7").step(0, rung=True)
    won = explained(replica, "4011")["candidates"][0]
    assert (won["kind"], won["scope"], won["stream"], won["commit"]) == ("override", "store-7", None, None)
    assert won["override"] == {
        "reason": "ripe",
        "set_at": rfc3339(NOW_MS)[:-1] + ".000Z",
        "until": rfc3339(NOW_MS + 3_600_000),
        "seq": 1,
        "ended_early": False,
    }
    assert "outbox entry 1: ripe" in typed(replica, "4011").stdout


def test_a_sku_without_a_price_now_is_explained_and_one_without_a_line_is_not_found(replica: Replica) -> None:
    put(replica, ALL, [line(1, "regular", f"[[{NOW_S + 900},null,199]]")], commit(LIVE, 1, 1))
    found = explained(replica, "4011")
    assert (found["price"], found["effective_at"], found["candidates"][0]["why"]) == (
        None,
        None,
        f"it begins at {rfc3339((NOW_S + 900) * 1000)}",
    )
    assert "4011 has no price at" in typed(replica, "4011").stdout
    missing = typed(replica, "4012")
    assert (missing.exit_code, missing.stderr.splitlines()[0]) == (1, "error: no price line of 4012 in this replica")


def test_a_version_in_quarantine_is_said(replica: Replica) -> None:
    put(replica, ALL, [line(1, "regular", "[[1700000000,null,199]]")], commit(LIVE, 1, 1))
    assert explained(replica, "4011")["held"] == []
    replica.connection.executemany(
        "INSERT INTO quarantine(stream, key, seq, row, reason, at_ms) VALUES(?, ?, 2, '[]', 'too odd', 5)",
        [("price/all", '["4011", "regular"]'), ("price/all", '["4012", "regular"]')],
    )
    assert explained(replica, "4011")["held"] == [
        {"stream": "price/all", "kind": "regular", "seq": 2, "reason": "too odd", "at": "1970-01-01T00:00:00.005Z"}
    ]
    assert "in quarantine: the regular price of price/all, seq 2: too odd" in typed(replica, "4011").stdout


def test_a_commit_of_unknown_origin_and_one_no_longer_kept_are_said(replica: Replica) -> None:
    row = line(1, "regular", "[[1700000000,null,199]]")
    replica.apply(
        ALL, epoch=EPOCH, position=1, digest="0" * 32, head_seq=1, batches=[([row], [])], replace=False, wall_ms=NOW_MS
    )
    found = explained(replica, "4011")["candidates"][0]["commit"]
    assert (found["how"], found["published_at"]) == ("catch_up", None)
    replica.connection.execute("DELETE FROM commits")
    assert explained(replica, "4011")["candidates"][0]["commit"] is None
    assert "its commit is no longer kept" in typed(replica, "4011").stdout


def test_a_seq_finds_the_commit_that_brought_it_and_no_other(replica: Replica) -> None:
    put(replica, ALL, [], commit(CATCH_UP, 1, 10))
    put(replica, ALL, [], commit(LIVE, 9, 12), commit(LIVE, 13, 13))
    put(replica, ALL, [], commit(CATCH_UP, 1, 20))
    put(replica, ALL, [], commit(LIVE, 21, 21))
    found = {}
    for seq in range(1, 23):
        row = commit_of(replica.connection, "price/all", seq)
        found[seq] = (row["first_seq"], row["last_seq"]) if row else None
    expected: dict[int, Any] = dict.fromkeys(range(1, 11), (1, 10))
    expected |= {11: (11, 12), 12: (11, 12), 13: (13, 13)} | dict.fromkeys(range(14, 21), (14, 20))
    assert found == expected | {21: (21, 21), 22: None}


def test_what_brings_nothing_new_does_not_take_the_place_of_what_did(replica: Replica) -> None:
    put(replica, ALL, [], commit(CATCH_UP, 1, 10))
    replica.apply(
        ALL, epoch=EPOCH, position=10, digest="0" * 32, head_seq=10, batches=[], replace=False, wall_ms=NOW_MS
    )
    put(replica, ALL, [], commit(LIVE, 9, 10), commit(LIVE, 11, 11))
    found = replica.connection.execute("SELECT how, first_seq, last_seq, published_at_ms FROM commits ORDER BY 3")
    assert found.fetchall() == [("catch_up", 1, 10, NOW_MS - 9_000), ("live", 11, 11, NOW_MS - 9_000)]


def test_a_replacement_forgets_the_commits_of_the_history_before(replica: Replica) -> None:
    put(replica, ALL, [], commit(LIVE, 1, 50))
    put(replica, WEST, [], commit(LIVE, 1, 7))
    put(replica, ALL, [], commit(CATCH_UP, 1, 5), replace=True)
    assert commit_of(replica.connection, "price/all", 6) is None
    assert replica.connection.execute("SELECT stream, last_seq FROM commits ORDER BY 1").fetchall() == [
        ("price/all", 5),
        ("price/zone-west", 7),
    ]


def test_a_commit_that_fails_leaves_no_line(replica: Replica) -> None:
    def broken() -> Iterator[Any]:
        yield [line(1, "regular", "[[0,null,5]]")], []
        raise EOFError

    with pytest.raises(EOFError):
        replica.apply(
            ALL,
            epoch=EPOCH,
            position=1,
            digest="0" * 32,
            head_seq=1,
            batches=broken(),
            replace=False,
            wall_ms=1,
            commits=[commit(LIVE, 1, 1)],
        )
    assert replica.connection.execute("SELECT count(*) FROM commits").fetchone() == (0,)


def test_provenance_stays_bounded_and_keeps_catch_ups_apart(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "COMMITS_MAX", 20)
    monkeypatch.setattr(provenance, "PRUNE_EVERY", 10)
    kept = Provenance(replica.connection)
    kept.record("price/all", [commit(CATCH_UP, 1, 1)], 0, NOW_MS)
    kept.record("price/zone-west", [commit(LIVE, 1, 1)], 0, NOW_MS)
    most = 0
    for seq in range(2, 200):
        kept.record("price/all", [commit(LIVE, seq, seq)], seq - 1, NOW_MS)
        (count,) = replica.connection.execute("SELECT count(*) FROM commits WHERE stream = 'price/all'").fetchone()
        most = max(most, count)
    assert most <= 20 + 10 + 2
    for seq in (1, 199, 180):
        assert commit_of(replica.connection, "price/all", seq) is not None
    assert commit_of(replica.connection, "price/all", 100) is None
    assert commit_of(replica.connection, "price/zone-west", 1) is not None
