"""What a container is made of: a Debian tree and a wheelhouse, made once and kept outside the repository."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SUITE = "bookworm"
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "python3",
    "python3-venv",
    "mosquitto",
    "nftables",
    "ca-certificates",
)
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
TOOLS = ("systemd-nspawn", "debootstrap", "nsenter")
RELEASE = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "storelink",
    "hq",
    "storenode",
    "deploy",
    "requirements",
    "docs",
)
"""What an unpacked release holds."""

MAKING_TIMEOUT_S = 420.0


class NotToBeHad(Exception):
    """A tool, a right or a registry is missing; the message says which."""


def cache() -> Path:
    """SYSTEM_TESTS_CACHE, or storenode-system in XDG_CACHE_HOME or the temporary directory."""
    chosen = os.environ.get("SYSTEM_TESTS_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir()
    place = Path(chosen) if chosen else Path(shared) / "storenode-system"
    place.mkdir(parents=True, exist_ok=True)
    return place


def debian() -> Path:
    """A Debian with systemd, Python and mosquitto. Raises NotToBeHad."""
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        raise NotToBeHad(f"not installed: {', '.join(missing)} (apt-get install systemd-container debootstrap)")
    if os.geteuid() != 0:
        raise NotToBeHad("only root can boot a container")
    tree = cache() / f"debian-{SUITE}-{_digest(*PACKAGES)}"
    with _made_once(tree) as part:
        if part is not None:
            _run(
                ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(part), *_mirror()],
                "Debian's registry",
            )
            for unread in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
                shutil.rmtree(part / unread, ignore_errors=True)
            (part / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
            (part / "etc/hostname").write_text("store\n")
    return tree


def wheelhouse(tree: Path) -> Path:
    """The locked packages and what builds ours, for the Python of `tree`. Raises NotToBeHad."""
    lock = REPOSITORY / "requirements/runtime.txt"
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["build-system"]["requires"]
    version = (tree / "usr/bin/python3").readlink().name.removeprefix("python")
    wheels = cache() / f"wheels-{_digest(version, lock.read_text(), *build)}"
    with _made_once(wheels) as part:
        if part is not None:
            pip = [*PIP, "download", "--dest", str(part), "--only-binary=:all:", "--python-version", version]
            _run([*pip, "--require-hashes", "-r", str(lock)], "PyPI")
            _run([*pip, "--no-deps", *build], "PyPI")
    return wheels


def release(place: Path) -> Path:
    """Lay out at `place` what a technician unpacks."""
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in RELEASE:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=unwanted)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place / name)
    return place


def wheel(source: Path, place: Path) -> None:
    """Build our own wheel from a release, as the installer's head tells; needs setuptools here, no network."""
    built = place / ".source"
    shutil.copytree(source, built)
    _run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(place), str(built)], "setuptools")
    shutil.rmtree(built)


def _mirror() -> list[str]:
    """Where this machine's apt takes the suite from; nothing: debootstrap's own choice."""
    command = ["apt-get", "indextargets", "--format", "$(CODENAME) $(SITE)", "Created-By: Packages", "Origin: Debian"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return [line.split()[1] for line in found.splitlines() if line.split()[:1] == [SUITE]][:1]


def _run(command: list[str], what: str) -> None:
    try:
        subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True, timeout=MAKING_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "output", None) or ""
        said = said.decode(errors="replace") if isinstance(said, bytes) else said
        raise NotToBeHad(f"{what}: {error}: {said[-800:]}") from error


@contextmanager
def _made_once(target: Path) -> Iterator[Path | None]:
    """Where to make `target`, or None if it is there; one process makes it, and only what is whole gets its name."""
    with target.with_name(f".{target.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            yield None
            return
        part = target.with_name(f".{target.name}.part")
        if part.exists():
            shutil.rmtree(part)
        part.mkdir()
        yield part
        part.rename(target)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
