"""The API that the daemon keeps: begun with it, begun anew when it dies, gone with it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testbed.broker import free_port
from testbed.chain import Chain
from testbed.process import Process, until


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """No broker: the API answers all the same."""
    found = Chain(tmp_path, start_broker=False)
    found.extra = {"STORENODE_API": f"127.0.0.1:{free_port()}"}
    yield found
    found.close()


def code_of(chain: Chain, address: str | None = None) -> int | None:
    """The status of /health; None when nobody answers."""
    try:
        return httpx.get(f"http://{address or chain.extra['STORENODE_API']}/health", trust_env=False).status_code
    except httpx.HTTPError:
        return None


def logged(store: Process, event: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in store.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def last_pid(store: Process) -> int:
    return int(str(logged(store, "api.started")[-1]["pid"]))


def is_gone(pid: int) -> bool:
    """Whether a process is no more; one that waits to be reaped is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_the_daemon_keeps_the_api_alive_and_stops_it_when_it_stops(chain: Chain) -> None:
    store = chain.add_store("s")
    until(lambda: code_of(chain) == 503, "the API answers that the store never bootstrapped")
    first = last_pid(store)
    assert is_gone(first) is False
    os.kill(first, signal.SIGKILL)
    until(lambda: len(logged(store, "api.started")) == 2 and code_of(chain) == 503, "another one answers")
    (ended,) = logged(store, "api.ended")
    assert (ended["outcome"], ended["level"]) == (-signal.SIGKILL, "warning")
    second = last_pid(store)
    assert store.stop() == 0
    assert (code_of(chain), is_gone(second)) == (None, True)
    assert [line["event"] for line in logged(store, "api.stopped")] == ["api.stopped"]


def test_a_killed_daemon_takes_the_api_with_it(chain: Chain) -> None:
    store = chain.add_store("s")
    until(lambda: code_of(chain) == 503, "the API answers")
    child = last_pid(store)
    store.stop(signal.SIGKILL)
    until(lambda: is_gone(child), "the API has noticed")
    store.start()
    until(lambda: code_of(chain) == 503, "the next daemon's API listens at the same place")


def test_an_address_that_is_taken_is_tried_again_and_harms_nothing_else(chain: Chain) -> None:
    with httpx.Client(trust_env=False):
        first = chain.add_store("a")
        until(lambda: code_of(chain) == 503, "the API answers")
        second = chain.add_store("b")
        until(lambda: len(logged(second, "api.ended")) > 1, "it is tried again")
        assert [line["again_in_ms"] for line in logged(second, "api.ended")][:2] == [1000, 2000]
        assert "cannot listen at" in second.log.read_text()
        assert chain.store("b", "status").returncode == 2, "its daemon runs"
        first.stop()
        until(lambda: code_of(chain) == 503, "the second has it now")


def test_the_api_process_is_told_nothing_of_the_broker(chain: Chain) -> None:
    chain.extra["STORENODE_OUTBOX"] = str(chain.directory / "box" / "outbox.db")
    store = chain.add_store("s")
    until(lambda: code_of(chain) == 503, "the API answers")
    environ = Path(f"/proc/{last_pid(store)}/environ").read_text().split("\0")
    told = dict(entry.split("=", 1) for entry in environ if entry.startswith("STORENODE_"))
    assert told == {
        "STORENODE_DB": str(chain.replica("s")),
        "STORENODE_STORE_ID": "s",
        "STORENODE_API_HOSTS": "",
        "STORENODE_OUTBOX": str(chain.directory / "box" / "outbox.db"),
        "STORENODE_OUTBOX_MAX_BYTES": "268435456",
        "STORENODE_API": chain.extra["STORENODE_API"],
    }


def test_another_address_in_the_settings_is_taken_up_by_a_reload(chain: Chain) -> None:
    before, after = chain.extra.pop("STORENODE_API"), f"127.0.0.1:{free_port()}"
    config = chain.directory / "storenode.toml"
    config.write_text(f'api = "{before}"\n')
    chain.extra["STORENODE_CONFIG"] = str(config)
    store = chain.add_store("s")
    until(lambda: code_of(chain, before) == 503, "the API answers")
    config.write_text(f'api = "{after}"\napi_hosts = ["till.example"]\n')
    (started,) = logged(store, "store.started")
    os.kill(int(str(started["pid"])), signal.SIGHUP)
    until(lambda: code_of(chain, after) == 503, "the API answers at the other address")
    assert code_of(chain, before) is None
    config.write_text("")
    os.kill(int(str(started["pid"])), signal.SIGHUP)
    until(lambda: code_of(chain, after) is None, "no API is asked for")
    assert (store.stop(), logged(store, "api.ended")) == (0, [])
