"""Where a command is typed, and what a hook is given: no code of the working directory runs, no secret is handed on."""

from __future__ import annotations

import json
import os
import select
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from storenode.jobs.hook import run_hook
from testbed.broker import free_port
from tests.faults.service import ROOT, Site, build, ended

LINES = (
    "storenode override 1 1.49 --until {until} --reason ripe",
    "storenode emit sale.total 1",
    "storenode rebuild",
    "storenode backup {private}",
    "storenode restore {private}/replica-copy.db",
    "storenode run",
    "storenode status",
    "storenode verify",
    "storenode doctor",
    "hq init",
    "hq publish price sku=1 amount=2.99 currency=EUR",
    "hq import price {private}/feed.csv",
    "hq get price 1",
    "hq price 1",
    "hq search 1",
    "hq export price {private}/made.csv",
    "hq backup {private}/made.db",
    "hq restore {private}/hq-copy.db",
    "hq run",
    "hq status",
    "hq verify",
    "hq doctor",
)
MODULES = (
    "sqlite3",
    "json",
    "sitecustomize",
    "usercustomize",
    "structlog",
    "storenode",
    "storelink",
    "hq",
    "encodings",
    "ensurepip",
    "venv",
    "pip",
)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return build(tmp_path)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A directory of modules that would write down that they ran, and programs likewise."""
    (directory := tmp_path / "trap").mkdir()
    canary = tmp_path / "canary"
    code = f"open({str(canary)!r}, 'a').write(__name__ + chr(10))\n"
    for name in MODULES:
        (directory / f"{name}.py").write_text(code)
    for name in ("storenode", "storelink", "hq"):
        (directory / name).mkdir()
        (directory / name / "__init__.py").write_text(code)
    for name in ("label", "mkdir", "id", "systemctl", "cat"):
        (directory / name).write_text(f"#!/bin/sh\necho {name} >>{shlex.quote(str(canary))}\n")
        (directory / name).chmod(0o755)
    return directory


def ran(trap: Path) -> str:
    canary = trap.parent / "canary"
    return canary.read_text() if canary.exists() else ""


@pytest.mark.parametrize("line", LINES)
def test_no_module_of_the_working_directory_runs(site: Site, trap: Path, line: str) -> None:
    """`storenode override` with the daemon down started a helper by `python -m`, which looks there first."""
    done = site.type(line, trap, python=(sys.executable,), PATH=f":{os.environ['PATH']}")
    assert ran(trap) == "", done.stdout.decode()
    judges = line.split()[1] in ("status", "verify", "doctor")
    assert done.returncode == 0 or judges, done.stdout.decode()
    assert b"Traceback" not in done.stdout


def test_nor_in_the_process_of_the_api(site: Site, trap: Path) -> None:
    port = free_port()
    environ = {
        **os.environ,
        "STORENODE_DB": str(site.store / "replica.db"),
        "STORENODE_API": f"127.0.0.1:{port}",
        "STORENODE_BROKER": "mqtt://127.0.0.1:1",
        "STORENODE_STORE_ID": "s",
    }
    command = [str(Path(sys.executable).with_name("storenode")), "run"]
    with subprocess.Popen(command, cwd=trap, env=environ, stderr=subprocess.PIPE) as daemon:
        assert daemon.stderr is not None
        said = b""
        while b'"api.' not in said and select.select([daemon.stderr], [], [], 60)[0]:
            piece = os.read(daemon.stderr.fileno(), 65_536)
            if not piece:
                break
            said += piece
        daemon.terminate()
        daemon.communicate()
    assert b'"event": "api.started"' in said
    assert ran(trap) == ""


def test_nor_by_the_installer(trap: Path) -> None:
    """It is root's: `python -c` and `python -m` look into the working directory first."""
    script = (ROOT / "deploy/install.sh").read_text(encoding="utf-8")
    programs = trap.parent / "programs"
    (programs / "bin").mkdir(parents=True)
    (programs / "bin" / "python").symlink_to(sys.executable)
    probe = script.replace("programs=/opt/storenode\n", f"programs={shlex.quote(str(programs))}\n")
    probe = (
        probe.replace('main "$@"\n', "").replace("rm -rf $programs", ":")
        + "\n"
        + (
            "say() { :; }\n"
            f"PYTHON={shlex.quote(sys.executable)}\npython=$PYTHON\n"
            "install_project() { exit 0; }\nsource=/nowhere\nwheelhouse=\nfail() { exit 0; }\n"
            "install_programs storenode STORENODE_CONFIG\n"
        )
    )
    (trap.parent / "probe.sh").write_text(probe)
    ended(["/bin/sh", str(trap.parent / "probe.sh")], {"PATH": os.environ["PATH"]}, trap)
    assert ran(trap) == ""


SECRET = "broker-secret"


def test_a_hook_is_given_a_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told.json"
    for name in ("STORENODE_BROKER", "HQ_BROKER", "STORENODE_ANYTHING", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "X"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("PATH", f":.:bin:/usr/bin::/bin:../{SECRET}")
    monkeypatch.setenv("TZ", "Europe/Rome")
    monkeypatch.setenv("LC_TIME", "C.UTF-8")
    code = f"import json, os; json.dump([os.getcwd(), dict(os.environ)], open({str(told)!r}, 'w'))"
    run_hook(f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}", b"{}")
    directory, environ = json.loads(told.read_text())
    assert directory == "/"
    assert {name: environ[name] for name in ("PATH", "TZ", "LC_TIME")} == {
        "PATH": "/usr/bin:/bin",
        "TZ": "Europe/Rome",
        "LC_TIME": "C.UTF-8",
    }
    known = {"PATH", "TZ", "LANG", "LANGUAGE", "USER", "LOGNAME", "HOME"}
    assert {name for name in environ if not name.startswith("LC_")} <= known
    assert SECRET not in told.read_text()


def test_a_hooks_command_is_not_looked_for_in_the_working_directory(
    trap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trap)
    monkeypatch.setenv("PATH", f":{os.environ['PATH']}")
    run_hook("cat", b"{}")
    assert ran(trap) == ""
