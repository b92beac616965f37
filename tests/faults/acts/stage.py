"""A stage: a process that has everything imported and forks one child for each act, which can be traced from its start.

The child waits to be let go, so strace sees precisely the act's own calls. It tells what it did in JSON lines on a
socket, each sent before it goes on, and so what the parent has read was true before the child was killed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from testbed.strace import Tracer, counting

ACT_S = 60.0
GO = b"g"
REQUEST_BYTES_MAX = 65_536


@dataclass
class Played:
    """How an act went: what it said, and the exit code of its process (negative: the signal that killed it)."""

    said: list[dict[str, Any]]
    code: int
    calls: Counter[str] = field(default_factory=Counter)

    def all_of(self, name: str) -> list[Any]:
        return [line[name] for line in self.said if name in line]


class Stage:
    """The parent's side of the process; acts are the functions of `tests.faults.acts.workload`."""

    def __init__(self) -> None:
        self._pid = 0
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.acts.stage", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=Path(__file__).parents[3],
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._process.wait(ACT_S)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child that is playing."""
        os.kill(self._pid, number)

    def play(
        self,
        act: str,
        directory: Path,
        *,
        strace: tuple[str, ...] = (),
        count: tuple[str, ...] = (),
        on_pause: Callable[[], None] = lambda: None,
        on_line: Callable[[dict[str, Any]], None] = lambda _: None,
        heal: bool = False,
        **parameters: Any,
    ) -> Played:
        """
        Play an act to its end in a process of its own.

        Args:
            strace: options of an injection; none: untraced.
            count: names of calls to count; makes `calls` of the result.
            on_pause: called while the child waits in `Say.pause`.
            on_line: called with each line as it comes.
            heal: the injection ends with the first pause.
        """
        ours, theirs = socket.socketpair()
        ours.settimeout(ACT_S)
        with ours, ExitStack() as stack:
            with theirs:
                request = json.dumps({"act": act, "directory": str(directory)} | parameters).encode()
                socket.send_fds(self._channel, [request], [theirs.fileno()])
            self._pid = pid = int(self._channel.recv(64))
            try:
                options = strace or (counting(count) if count else ())
                tracer = stack.enter_context(Tracer(pid, options)) if options else None
                assert tracer is None or tracer.attached, tracer.words
                ours.sendall(GO)
                said: list[dict[str, Any]] = []
                for line in _whole_lines(ours):
                    said.append(line)
                    on_line(line)
                    if line == {"paused": True}:
                        on_pause()
                        if heal and tracer is not None:
                            tracer.let_go()
                        ours.sendall(GO)
            except BaseException:
                os.kill(pid, signal.SIGKILL)
                raise
            finally:
                code = os.waitstatus_to_exitcode(int(self._channel.recv(64)))
            calls = tracer.calls() if tracer is not None and count else Counter[str]()
        return Played(said, code, calls)


def _whole_lines(line: socket.socket) -> Iterator[dict[str, Any]]:
    """What the child says, until it is gone; what it could not finish was not said."""
    with line.makefile("rb") as lines:
        for text in lines:
            if text.endswith(b"\n"):
                yield json.loads(text)


class Say:
    """The child's side: what it tells the parent."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def __call__(self, **facts: object) -> None:
        self._line.sendall(json.dumps(facts).encode() + b"\n")

    def pause(self) -> None:
        """Stand still until the parent has looked around."""
        self(paused=True)
        self._line.recv(1)


def _child(request: dict[str, Any], line: socket.socket) -> int:
    from tests.faults.acts import workload

    say = Say(line)
    act, directory = request.pop("act"), Path(request.pop("directory"))
    line.recv(1)
    try:
        getattr(workload, act)(directory, say, **request)
    except BrokenPipeError:
        return 4  # nobody listens any more
    except Exception as error:
        say(raised=f"{type(error).__module__}.{type(error).__qualname__}: {error}")
        return 3
    return 0


def _serve(channel: socket.socket) -> None:
    while True:
        request, fds, _, _ = socket.recv_fds(channel, REQUEST_BYTES_MAX, 1)
        if not request:
            return
        with socket.socket(fileno=fds[0]) as line:
            pid = os.fork()
            if pid == 0:
                channel.close()
                os._exit(_child(json.loads(request), line))
        channel.send(str(pid).encode())
        channel.send(str(os.waitpid(pid, 0)[1]).encode())


if __name__ == "__main__":
    import logging

    import structlog

    from tests.faults.acts import workload  # noqa: F401 - imported before the first fork

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    _serve(socket.socket(fileno=int(sys.argv[1])))
