"""A process of the test bed leaves nothing behind and is charged with its own cost."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from testbed.process import Process, StepFailed, environment


def test_a_measured_process_that_ends_by_itself_is_told_with_what_it_wrote(tmp_path: Path) -> None:
    code = "import sys; sys.exit('no broker')"
    process = Process([sys.executable, "-c", code], environment({}), tmp_path / "log").start()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(StepFailed, match="exit code 1:\nno broker"):
        process.check()


def test_a_measured_process_is_charged_with_its_own_memory_and_time_only(tmp_path: Path) -> None:
    ballast = bytearray(os.urandom(1)) * (256 * 1024 * 1024)
    process = Process([sys.executable, "-c", "while True: pass"], environment({}), tmp_path / "log").start()
    try:
        while process.usage().cpu_s < 0.1:
            process.check()
        used = process.usage()
    finally:
        process.kill()
    assert used.rss_bytes <= used.peak_bytes < 64 * 1024 * 1024 < len(ballast)


def test_nobodys_own_settings_reach_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HQ_ROOT", "elsewhere")
    monkeypatch.setenv("STORENODE_SCOPES", "zone-west")
    assert {n for n in environment({"HQ_DB": "x"}) if n.startswith(("HQ_", "STORENODE_"))} == {"HQ_DB"}
