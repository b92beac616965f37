"""The hook of price changes: told in bounded pieces, within a time limit, tried again a few times, then given up."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from storelink.contract.contexts import BUILT_IN
from storelink.contract.rows import EMPTY
from storelink.contract.streams import Stream
from storenode.config import load
from storenode.errors import BadSettings, HookFailed
from storenode.jobs.hook import run_hook
from storenode.jobs.notifier import ENTRY_SKUS_MAX, ENTRY_TYPE, HOOK_PRICES_MAX, RETRY_AFTER_S, PriceChangeNotifier
from storenode.jobs.price_changes import PriceChanges
from storenode.outbox.store import Outbox
from storenode.replica.writer import Replica

NOW_S = int(time.time())


def python(code: str) -> str:
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def web(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A real server on the loopback; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/labels?till=3"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_command_gets_the_body_on_its_standard_input(tmp_path: Path) -> None:
    target = tmp_path / "got it"
    run_hook(python(f"import sys; open({str(target)!r}, 'wb').write(sys.stdin.buffer.read())"), b"x" * 300_000)
    assert target.read_bytes() == b"x" * 300_000


def test_a_command_is_split_and_never_given_to_a_shell(tmp_path: Path) -> None:
    target = tmp_path / "made"
    run_hook(f"true ; touch {target}", b"")
    assert not target.exists()


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        (python("import sys; print('no paper'); sys.exit(3)"), "it ended with 3: no paper"),
        (python("import sys; sys.stderr.write('x' * 9_000_000 + ' the end'); sys.exit(1)"), "x the end$"),
        ("/nowhere/labels", "cannot be started: No such file"),
        ("false", "it ended with 1: $"),
    ],
    ids=["says why", "says too much", "is not there", "says nothing"],
)
def test_a_command_that_fails_says_why_in_one_short_line(hook: str, reason: str) -> None:
    with pytest.raises(HookFailed, match=reason) as caught:
        run_hook(hook, b"{}")
    assert len(str(caught.value)) < 300


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "import os, subprocess, sys, time; child = subprocess.Popen(['sleep', '600']);"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); time.sleep(600)"
    )
    with pytest.raises(HookFailed, match="longer than 2 s"):
        run_hook(python(code), b"{}", 2.0)
    for pid in pids.read_text().split():
        deadline_s = time.monotonic() + 20.0
        while _lives(pid):
            assert time.monotonic() < deadline_s, f"{pid} lives on"
            time.sleep(0.01)


def test_of_what_a_command_says_no_more_is_held_in_memory_than_is_kept() -> None:
    tracemalloc.start()
    try:
        run_hook(python("print('x' * 20_000_000)"), b"{}")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2_000_000


def test_a_command_that_leaves_a_child_with_its_output_open_is_done_when_it_ends(tmp_path: Path) -> None:
    """Waiting for the end of its output would be waiting for the child."""
    pid, over = tmp_path / "pid", tmp_path / "over"
    child = f"import time; time.sleep(20); open({str(over)!r}, 'w')"
    code = (
        f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {child!r}]);"
        f"open({str(pid)!r}, 'w').write(str(child.pid))"
    )
    run_hook(python(code), b"{}", 60.0)
    os.kill(int(pid.read_text()), signal.SIGKILL)
    assert not over.exists()


def test_a_web_address_gets_a_post_of_json() -> None:
    got: list[tuple[str, str | None, bytes]] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        got.append((request.path, request.headers["Content-Type"], body))
        request.send_response(204)
        request.end_headers()

    with web(answer) as address:
        run_hook(address, b'{"skus":[]}')
    assert got == [("/labels?till=3", "application/json", b'{"skus":[]}')]


@pytest.mark.parametrize("status", [301, 404, 500])
def test_a_web_address_that_does_not_answer_2xx_has_failed(status: int) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.end_headers()
        request.wfile.write(b"no such printer")

    with web(answer) as address, pytest.raises(HookFailed, match=f"127.0.0.1 answered {status}: no such printer"):
        run_hook(address, b"{}")


def test_a_web_address_that_drips_is_cut_off() -> None:
    """Each byte comes within the timeout of a read; only a limit on the whole ends it."""
    over, drips = threading.Event(), []

    def answer(request: BaseHTTPRequestHandler) -> None:
        for _ in range(300):
            try:
                request.wfile.write(b"H")
                request.wfile.flush()
            except OSError:
                return
            drips.append(1)
            if over.wait(0.1):
                return

    with web(answer) as address:
        with pytest.raises(HookFailed, match="does not answer as it should"):
            run_hook(address, b"{}", 1.0)
        over.set()
    assert len(drips) < 300, "it did not wait for the end"


def test_a_web_address_where_nobody_listens_has_failed() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(HookFailed, match="refused"):
            run_hook(f"http://127.0.0.1:{taken.getsockname()[1]}/", b"{}")


@pytest.mark.parametrize(
    "text", ["ftp://host/", "http://", "http://user:pw@host/", "http://host:99999/", "'open", " ", "bin/x", "./x"]
)
def test_a_hook_that_cannot_be_one_is_refused(text: str) -> None:
    with pytest.raises(BadSettings, match="STORENODE_ON_PRICE_CHANGE"):
        load({"STORENODE_ON_PRICE_CHANGE": text})


class Shop:
    """Prices that change, the notifications of them, and a clock that is set by hand."""

    def __init__(self, directory: Path, hook: str | None, *, hq: bool = True) -> None:
        self.monotonic_s, self.wall_ms = 1_000.0, NOW_S * 1000
        self.outbox = directory / "outbox.db"
        self.replica = Replica.open(directory / "replica.db", ("all",), BUILT_IN)
        self.price_changes = PriceChanges(directory / "changes", directory / "replica.db")
        self.notifier = PriceChangeNotifier(
            "s",
            self.price_changes,
            (self.outbox, 10_000_000),
            hook=hook,
            hq=hq,
            wall_ms=lambda: self.wall_ms,
            monotonic_s=lambda: self.monotonic_s,
            time_limit_s=20.0,
        )
        self.put(0, 1_500)
        self.notifier.find_changes()

    def put(self, amount: int, count: int) -> None:
        at = self.replica.state(Stream.parse("price/all", BUILT_IN)).position
        rows = [
            (at + n, f"{n:04}", "regular", "EUR", f"[[{NOW_S - 9_000},null,{amount}]]") for n in range(1, count + 1)
        ]
        self.replica.apply(
            Stream.parse("price/all", BUILT_IN),
            epoch="e",
            position=at + count,
            digest=EMPTY,
            head_seq=at + count,
            batches=[(rows, [])],
            replace=False,
            wall_ms=0,
        )

    def entries(self) -> list[tuple[str, object]]:
        with Outbox(self.outbox) as outbox:
            return [(e.type, json.loads(e.data)) for e in outbox.after(0, 100)[0]]


def test_the_hook_gets_all_that_changed_in_bounded_pieces(tmp_path: Path) -> None:
    log = tmp_path / "log"
    shop = Shop(tmp_path, python(f"import sys; open({str(log)!r}, 'a').write(sys.stdin.read() + '\\n')"))
    shop.put(7, 1_200)
    shop.notifier.find_changes()
    assert shop.notifier.has_pending()
    assert shop.notifier.notify_hook() == 1_200
    assert not shop.notifier.has_pending()
    first, second = (json.loads(line) for line in log.read_text().splitlines())
    assert (len(first["skus"]), len(second["skus"])) == (HOOK_PRICES_MAX, 200)
    assert (first["store_id"], first["skus"][0], first["prices"][0]) == (
        "s",
        "0001",
        {
            "sku": "0001",
            "amount_minor": 7,
            "currency": "EUR",
            "kind": "regular",
            "scope": "all",
            "starts_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW_S - 9_000)),
            "ends_at": None,
        },
    )
    assert first["at"].startswith(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(NOW_S)))


def test_a_hook_that_fails_is_tried_again_after_a_pause_and_gets_the_newest_price(tmp_path: Path) -> None:
    log, broken = tmp_path / "log", tmp_path / "broken"
    code = (
        f"import os, sys; text = sys.stdin.read(); sys.exit(os.path.exists({str(broken)!r}) or"
        f" open({str(log)!r}, 'a').write(text + '\\n') and 0)"
    )
    shop = Shop(tmp_path, python(code))
    broken.touch()
    shop.put(7, 3)
    shop.notifier.find_changes()
    with pytest.raises(HookFailed, match="tried again in 60 s"):
        shop.notifier.notify_hook()
    assert not shop.notifier.may_try_hook
    shop.put(8, 1)
    shop.notifier.find_changes()
    shop.monotonic_s += RETRY_AFTER_S[0]
    assert shop.notifier.may_try_hook
    broken.unlink()
    assert shop.notifier.notify_hook() == 3
    (line,) = log.read_text().splitlines()
    assert {p["sku"]: p["amount_minor"] for p in json.loads(line)["prices"]} == {"0001": 8, "0002": 7, "0003": 7}


def test_a_hook_that_goes_on_failing_is_given_up_after_four_tries_and_begins_anew_with_what_changes_next(
    tmp_path: Path,
) -> None:
    shop = Shop(tmp_path, "false")
    shop.put(7, 3)
    shop.notifier.find_changes()
    for pause_s in RETRY_AFTER_S:
        with pytest.raises(HookFailed, match=f"tried again in {pause_s} s"):
            shop.notifier.notify_hook()
        assert not shop.notifier.may_try_hook
        shop.monotonic_s += pause_s
    with pytest.raises(HookFailed, match="given up, 3 prices were not delivered"):
        shop.notifier.notify_hook()
    assert shop.notifier.may_try_hook
    assert not shop.notifier.has_pending()
    shop.put(8, 2)
    shop.notifier.find_changes()
    with pytest.raises(HookFailed, match="tried again in 60 s"):
        shop.notifier.notify_hook()


def test_hq_hears_at_most_once_a_minute_of_all_that_changed_and_never_too_much(tmp_path: Path) -> None:
    shop = Shop(tmp_path, None)
    shop.wall_ms = NOW_S // 60 * 60_000
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(shop.wall_ms // 1000))
    shop.notifier.notify_hq()
    assert shop.entries() == [], "nothing changed"
    shop.put(7, 1_200)
    shop.notifier.find_changes()
    shop.notifier.notify_hq()
    ((kind, data),) = shop.entries()
    assert isinstance(data, dict)
    assert (kind, data["count"], len(data["skus"]), data["skus"][0]) == (ENTRY_TYPE, 1_200, ENTRY_SKUS_MAX, "0001")
    assert data["at"].startswith(at)
    shop.put(8, 2)
    shop.notifier.find_changes()
    shop.wall_ms += 59_999
    shop.notifier.notify_hq()
    assert len(shop.entries()) == 1
    shop.wall_ms += 1
    shop.notifier.notify_hq()
    shop.notifier.notify_hq()
    assert len(shop.entries()) == 2
    assert shop.entries()[1][1] | {"at": None} == {"at": None, "count": 2, "skus": ["0001", "0002"]}  # type: ignore[operator]


def test_nothing_is_pending_for_whom_the_settings_do_not_name(tmp_path: Path) -> None:
    shop = Shop(tmp_path, None, hq=False)
    shop.put(7, 3)
    shop.notifier.find_changes()
    shop.notifier.notify_hq()
    assert not shop.notifier.has_pending()
    assert not shop.notifier.may_try_hook
    assert shop.price_changes.pending_for_hq(9) == (0, [])
    assert not os.path.exists(shop.outbox)
