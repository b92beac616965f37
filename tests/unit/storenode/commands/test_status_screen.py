"""The screen of `storenode status`: in a pipe, on a terminal, live."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from storelink.contract.contexts import BUILT_IN
from storelink.contract.streams import Stream
from storelink.host.locks import lock_instance
from storenode.cli import main
from storenode.replica.writer import Replica


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Replica]:
    replica = Replica.open(tmp_path / "replica.db", ("all",), BUILT_IN)
    now_ms = time.time_ns() // 1_000_000
    for context in ("price", "product"):
        replica.apply(
            Stream(BUILT_IN[context], "all"),
            epoch="000000000001-00000000",
            position=1,
            digest="0" * 32,
            head_seq=1,
            batches=[],
            replace=False,
            wall_ms=now_ms,
        )
    replica.feed_search()
    replica.heartbeat(
        store_id="store-7", pid=os.getpid(), connected=True, started_at_ms=now_ms, counters={}, wall_ms=now_ms
    )
    lock = lock_instance(Path(f"{replica.path}.lock"))
    assert lock is not None
    with lock:
        yield replica
    replica.connection.close()


def typed(path: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["--db", str(path), "status", *words], env={"STORENODE_CONFIG": ""})
    return result.exit_code, result.stdout


def masked(screen: str) -> list[str]:
    """The screen's lines without what differs from run to run."""
    screen = re.sub(r"\d{4}-\d\d-\d\dT[\d:]{8}Z", "TIME", re.sub(r"pid \d+, up \d+ seconds?", "pid, up", screen))
    return [re.sub(r" +", " ", re.sub(r"[\d.]+ (kB|MB|GB|TB|bytes)", "SIZE", s)).rstrip() for s in screen.splitlines()]


def test_the_screen_in_a_pipe_is_plain_and_one_fact_a_line(live: Replica) -> None:
    code, screen = typed(live.path)
    assert "\x1b" not in screen
    lines = [s for s in masked(screen) if not s.startswith("search ")]
    assert (code, lines) == (
        0,
        [
            "store-7 live connected, pid, up",
            "stream state position behind rows as of digest",
            "price/all live 1 0 0 TIME 000000000000",
            "product/all live 1 0 0 TIME 000000000000",
            "outbox 0 waiting for HQ; 0 refused",
            "clock not compared with HQ's",
            "disk SIZE and SIZE of write-ahead log; SIZE free",
            "All is well.",
        ],
    )


def test_the_screen_says_what_to_type(live: Replica) -> None:
    live.set_verified(Stream.parse("price/all", BUILT_IN), ok=False, at_ms=1)
    code, screen = typed(live.path)
    assert (code, masked(screen)[-2:]) == (
        2,
        [
            "disk SIZE and SIZE of write-ahead log; SIZE free",
            "fail price/all: rows were found that are not HQ's; they are fetched anew by themselves.",
        ],
    )


def test_the_screen_shows_the_states_of_read_models(live: Replica) -> None:
    db = live.connection
    db.execute("DELETE FROM read_models")
    row = "'product_search', 'product/all', 1, 'behind'"
    db.execute(f"INSERT INTO read_models(name, stream, position, state) VALUES ({row})")
    assert "search product_search of product/all: behind" in masked(typed(live.path)[1])


def test_json_and_watch_do_not_go_together(live: Replica) -> None:
    assert typed(live.path, "--json", "--watch") == (3, "")


def watched(path: Path, env: dict[str, str], change: Any) -> tuple[int, str, str]:
    """Watch on a terminal, wait for the picture, change something, wait for the new one, press Ctrl-C."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "storenode.cli", "--db", str(path), "status", "--watch"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "STORENODE_CONFIG": ""} | env,
    )
    os.close(theirs)

    def until(text: str) -> str:
        seen, deadline_s = "", time.monotonic() + 20
        while text not in seen:
            assert time.monotonic() < deadline_s, seen
            if select.select([ours], [], [], 0.2)[0]:
                seen += os.read(ours, 65_536).decode(errors="replace")
        return seen

    try:
        before = until(change[0])
        change[1]()
        after = until(change[2])
        process.send_signal(signal.SIGINT)
        deadline_s = time.monotonic() + 20
        with suppress(OSError):  # a terminal that nobody holds any more
            while process.poll() is None and select.select([ours], [], [], 5)[0] and os.read(ours, 65_536):
                assert time.monotonic() < deadline_s, "it goes on after Ctrl-C"
        return process.wait(10), before, after
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_watch_follows_in_colour_until_ctrl_c_and_leaves_well(live: Replica) -> None:
    def differ() -> None:
        live.set_verified(Stream.parse("price/all", BUILT_IN), ok=False, at_ms=1)

    code, before, _ = watched(live.path, {}, ("All is well.", differ, "not HQ's"))
    assert (code, "\x1b[32m" in before) == (0, True)


def test_watch_waits_for_a_replica_that_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "replica.db"
    made: list[Replica] = []
    code, _, _ = watched(
        path,
        {"COLUMNS": "200"},
        ("there is no replica", lambda: made.append(Replica.open(path, ("all",), BUILT_IN)), "has never been complete"),
    )
    made[0].connection.close()
    assert code == 0
