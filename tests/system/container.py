"""A booted container: real systemd as its first process, a network of its own with nothing but the loopback."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

from testbed.process import until

BOOT_TIMEOUT_S = 90.0
ROOT_BYTES_MAX = 2 * 1024**3
REBOOT_CODE = 133
"""What systemd-nspawn ends with (under --keep-unit) when its container asks to be started again."""

NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid")
ENVIRON = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}


class Container:
    """Booted from a directory of its own, which `close` removes."""

    def __init__(self, root: Path, log: Path) -> None:
        self.root = root
        self.log = log
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._nsenter = shutil.which("nsenter") or "nsenter"

    def make_root(self, tree: Path) -> None:
        """Copy `tree`, into memory where that is allowed: hundreds of megabytes and every fsync spare the disk."""
        self.root.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOT_BYTES_MAX},mode=755", "storenode-system", str(self.root)]
        subprocess.run(mount, capture_output=True, check=False)
        subprocess.run(["cp", "--archive", f"{tree}/.", str(self.root)], check=True)

    def boot(self) -> None:
        """Start it and wait until its systemd has started everything."""
        command = ["systemd-nspawn", "--quiet", "--directory", str(self.root), "--register=no", "--keep-unit"]
        command += ["--private-network", "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--machine=store"]
        with self.log.open("ab") as log:
            self._nspawn = subprocess.Popen(
                [*command, "--boot"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._wait_booted()

    def reboot(self) -> None:
        """As a power button's short press; returns when everything is started again."""
        assert self._nspawn is not None
        self.run("systemctl", "reboot", check=False)
        assert self._nspawn.wait(BOOT_TIMEOUT_S) == REBOOT_CODE, f"not a reboot; see {self.log}"
        self.boot()

    def close(self) -> None:
        if self._nspawn is not None:
            leader = self._first_process()
            if leader is not None:
                subprocess.run(["kill", "-KILL", str(leader)], check=False)
            try:
                self._nspawn.wait(20)
            except subprocess.TimeoutExpired:
                self._nspawn.send_signal(signal.SIGKILL)
                self._nspawn.wait()
        if self.root.is_mount():
            subprocess.run(["umount", "--lazy", str(self.root)], check=True)
        shutil.rmtree(self.root, ignore_errors=True)

    def run(
        self,
        *arguments: str,
        user: str | None = None,
        check: bool = True,
        text: str | None = None,
        timeout_s: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root or as `user`."""
        command = [*arguments] if user is None else ["runuser", "-u", user, "--", *arguments]
        done = subprocess.run(
            [self._nsenter, "--target", str(self._first_process()), *NAMESPACES, "--", *command],
            env=ENVIRON,
            input=text or "",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def host_path(self, path: str) -> Path:
        """Where this machine sees the container's `path`."""
        return self.root / path.lstrip("/")

    def host_pid(self, pid: int) -> int:
        """This machine's number of the container's process `pid`."""
        first = self._first_process()
        waiting = [] if first is None else [first]
        while waiting:
            found = waiting.pop()
            if _namespace_pid(found) == pid:
                return found
            waiting += _children(found)
        raise ProcessLookupError(pid)

    def _wait_booted(self) -> None:
        until(self._is_booted, f"the container boots; see {self.log}", BOOT_TIMEOUT_S)

    def _is_booted(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, f"the container ended:\n{self.log.read_text(errors='replace')[-2000:]}"
        if self._first_process() is None:
            return False
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in ("running", "degraded")

    def _first_process(self) -> int | None:
        """The container's process 1, by this machine's number."""
        assert self._nspawn is not None
        try:
            waiting = _children(self._nspawn.pid)
            while waiting:
                pid = waiting.pop()
                if _namespace_pid(pid) == 1:
                    return pid
                waiting += _children(pid)
        except FileNotFoundError:
            pass  # it is on its way down
        return None


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _namespace_pid(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = next(line for line in lines if line.startswith("NSpid:")).split()
    return int(found[-1]) if len(found) > 2 else 0
