"""Reconnection: waits grow with jitter, only a steady connection resets them, nothing ends the thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from storelink.transport.connection import LineCommand, LineLost, LinkOptions
from storelink.transport.port import Connected, Disconnected, LinkEvent
from storelink.transport.reconnect import ReconnectingLink, backoff_s
from storelink.transport.url import BrokerUrl


class Scripted:
    """A connection that does what the next line of a script says."""

    def __init__(self, options: LinkOptions, generation: int, end: str, tick: Callable[[float], None]) -> None:
        self.up = self.useful = False
        self.packet_bytes_max: int | None = None
        self._options, self._generation, self._end, self._tick = options, generation, end, tick

    def submit(self, command: LineCommand) -> None:
        raise NotImplementedError

    def run(self) -> None:
        if self._end == "defect":
            raise ZeroDivisionError("planted")
        if self._end == "refused":
            raise LineLost("refused")
        self.up = True
        self._options.emit(Connected(self._generation))
        self.useful = self._end != "useless"
        self._tick(1.0 if self._end == "brief" else 60.0)
        raise LineLost("broke")

    def dispose(self) -> None:
        self.up = False


def run_script(script: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[list[LinkEvent], list[float]]:
    """Events, and the longest wait that each end allowed, until the script is through."""
    now_s = [0.0]
    ceilings: list[float] = []
    events: list[LinkEvent] = []
    done = threading.Event()
    lines = iter(script)

    def tick(seconds: float) -> None:
        now_s[0] += seconds

    def connect(options: LinkOptions, generation: int) -> Scripted:
        return Scripted(options, generation, next(lines), tick)

    def jitter(low: float, high: float) -> float:
        assert low == 0
        ceilings.append(high)
        if len(ceilings) == len(script):
            done.set()
            options.closing.set()
        return 0.0

    monkeypatch.setattr("storelink.transport.reconnect.time", SimpleNamespace(monotonic=lambda: now_s[0]))
    monkeypatch.setattr("storelink.transport.reconnect.random", SimpleNamespace(uniform=jitter))
    made = ReconnectingLink(connect, BrokerUrl("h", 1), "a", events.append, None, 15)
    options = made._options
    made.start()
    assert done.wait(5.0)
    made._thread.join(5.0)
    made.close()
    return events, ceilings


def test_waits_double_up_to_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    _, ceilings = run_script(["refused"] * 10, monkeypatch)
    assert ceilings == pytest.approx([0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0])
    assert backoff_s(0) == 0.2
    assert backoff_s(10**9) == 5.0


@pytest.mark.parametrize(("end", "ceiling"), [("steady", 0.2), ("brief", 1.6), ("useless", 1.6)])
def test_only_a_steady_and_useful_connection_makes_the_next_attempt_quick(
    end: str, ceiling: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ceilings = run_script(["refused", "refused", end], monkeypatch)
    assert ceilings[-1] == pytest.approx(ceiling)


def test_a_reason_is_told_once_until_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    script = ["refused", "refused", "defect", "defect", "refused", "steady", "brief", "refused"]
    events, _ = run_script(script, monkeypatch)
    assert events == [
        Disconnected("refused"),
        Disconnected("ZeroDivisionError: planted"),
        Disconnected("refused"),
        Connected(1),
        Disconnected("broke"),
        Connected(2),
        Disconnected("broke"),
        Disconnected("refused"),
    ]
