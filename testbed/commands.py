"""Our commands, run to their end: forked from a server that has them imported, or spawned as they are typed.

A test asks a store or HQ a hundred things; most of each process would be Python's start and our imports. Here a server
that has done both (multiprocessing's forkserver, without threads) forks for each command: its own process, environment,
descriptors and exit code, as if it had been typed. Daemons, the demo and the measures begin the real way.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from tempfile import NamedTemporaryFile

from testbed.process import command

TIMEOUT_S = 60
SPAWNED_TIMEOUT_S = 900
"""`hq import` of a million rows takes its time."""

PROGRAMS = {"hq": "hq.cli", "storenode": "storenode.cli"}
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([*PROGRAMS.values(), "storenode.commands.status", "storenode.doctor.checks"])

Runner = Callable[[str, Sequence[str], Mapping[str, str]], "subprocess.CompletedProcess[str]"]
"""Takes the program, its arguments and its environment."""


def run(program: str, arguments: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """
    Fork `hq` or `storenode`, and wait for its end.

    Raises:
        subprocess.TimeoutExpired: it has not ended within a minute; it is killed.
    """
    with NamedTemporaryFile("w+") as out, NamedTemporaryFile("w+") as err:
        process = _CONTEXT.Process(target=_become, args=(program, arguments, dict(environ), out.name, err.name))
        process.start()
        process.join(TIMEOUT_S)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired([program, *arguments], TIMEOUT_S)
        return subprocess.CompletedProcess([program, *arguments], process.exitcode, out.read(), err.read())


def spawn(program: str, arguments: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Start the installed command as a user does, and wait for its end. Raises subprocess.TimeoutExpired."""
    return subprocess.run(
        [command(program), *arguments],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SPAWNED_TIMEOUT_S,
        check=False,
    )


def _become(program: str, arguments: Sequence[str], environ: dict[str, str], out: str, err: str) -> None:
    os.environ.clear()
    os.environ.update(environ)
    for number, name in ((1, out), (2, err)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), number)
    sys.argv = [program, *arguments]
    import_module(PROGRAMS[program]).main()
