"""What root types beside a service's files is done by the owner of their directory.

Whoever owns a directory can put symbolic links under every name in it: root would make, overwrite or give away the
files that they lead to. So a command that root typed becomes the owner before it touches anything there, for good.
What root named itself, and the owner may not reach, is carried along: see NamedFile and Delivery.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, NoReturn, Protocol

from storelink.errors import DeliveryFailed, NamedFileUnreadable, RootRefused
from storelink.host.files import no_follow, sync

ROOT_UID = 0
LINKS_MAX = 40
"""Symbolic links on the way to a directory; Linux follows as many."""

HEADER_BYTES_MAX = 1_000
COPY_BYTES = 1 << 20
LOGS = ("-wal",)
"""What belongs to an SQLite file that was copied by hand."""


class Carried(Protocol):
    """What root named, outside of the directory."""

    def prepare(self) -> None:
        """Do what only root may; called just before root becomes the owner, and not at all if it does not."""


def drop_to_owner_of(*directories: Path, carried: tuple[Carried, ...] = ()) -> None:
    """
    Root becomes, for good, the owner of the first of these directories that is not root's; nobody else becomes anyone.

    The directory is the real one. A symbolic link on the way that is not root's counts as its owner's directory, and
    one that is not there yet as what it will be made in. Groups are those of the owner's account.

    Raises:
        RootRefused: root may not become that user, or that user cannot read this program.
    """
    if os.geteuid() != ROOT_UID:
        return
    found = next((each for place in directories for each in _passed(place) if each.st_uid != ROOT_UID), None)
    if found is None:
        return
    for each in carried:
        each.prepare()
    try:
        name = _become(found.st_uid, found.st_gid)
    except OSError as error:
        problem = f"root cannot become user {found.st_uid}, whose directory this is: {error.strerror}"
        raise RootRefused(problem, hint="type this as that user") from error
    for part in (sys.executable, os.__file__, __file__):
        if not os.access(part, os.R_OK):
            raise RootRefused(
                f"{name}, whose directory this is, cannot read {part}",
                hint="install the program where every user can read it: deploy/install.sh",
            )


def _passed(directory: Path) -> Iterator[os.stat_result]:
    """Each symbolic link on the way to a directory, then the directory or the nearest above it that is there."""
    place, links = Path("/"), 0
    names = list(reversed(directory.absolute().parts[1:]))
    while names:
        name = names.pop()
        try:
            found = (place / name).lstat()
        except (FileNotFoundError, NotADirectoryError):
            break
        if not stat.S_ISLNK(found.st_mode):
            place = place.parent if name == ".." else place / name
            continue
        yield found
        links += 1
        if links > LINKS_MAX:
            raise RootRefused(f"{directory}: too many symbolic links", hint="name the directory itself")
        target = (place / name).readlink()
        place = Path("/") if target.is_absolute() else place
        names += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    yield place.stat()


def _become(uid: int, gid: int) -> str:
    """Returns the name of who this process is now. A user without an account gets the directory's group alone."""
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        name, gid = f"user {uid}", gid or uid  # never root's group
        os.setgroups([])
    else:
        name, gid = account.pw_name, account.pw_gid
        os.initgroups(name, gid)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    return name


class NamedFile:
    """A file that is to be read, and that root may read though the owner may not."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: dict[str, IO[bytes]] = {}

    def prepare(self) -> None:
        """Open it, and the log beside it, if there is one. Raises NamedFileUnreadable."""
        for suffix in ("", *LOGS):
            path = Path(f"{self._path}{suffix}")
            if suffix and not path.is_file():
                continue
            try:
                self._opened[suffix] = path.open("rb")
            except OSError as error:
                problem = f"{path} cannot be read: {error.strerror}"
                raise NamedFileUnreadable(problem, hint="name a file that is there") from error

    @contextmanager
    def readable(self, workshop: Path) -> Iterator[Path]:
        """The file itself; or, once root has become another user, that user's copy in a private directory."""
        if not self._opened:
            yield self._path
            return
        import shutil
        from tempfile import TemporaryDirectory

        workshop.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened, TemporaryDirectory(prefix=".named-", dir=workshop) as directory:
            for suffix, file in self._opened.items():
                opened.enter_context(file)
                with open(Path(directory, f"{self._path.name}{suffix}"), "wb", opener=no_follow) as copy:
                    shutil.copyfileobj(file, copy, COPY_BYTES)
            yield Path(directory, self._path.name)


class Delivery:
    """
    Brings a new file into a directory that root may write and the owner may not.

    Before root becomes the owner, it leaves a process behind that becomes the owner of `directory`, often root itself.
    That one takes a name and bytes, and puts them there; it opens nothing of the other's.

    Args:
        fits: whether a file of this name may come.
        afterwards: done there once the file is in place; what it returns, `send` does.
    """

    def __init__(
        self, directory: Path, fits: Callable[[str], bool], afterwards: Callable[[], list[str]] = list[str]
    ) -> None:
        self._directory, self._fits, self._afterwards = directory.absolute(), fits, afterwards
        self._socket: socket.socket | None = None
        self._child = 0

    def prepare(self) -> None:
        """Leave the other process behind."""
        ours, theirs = socket.socketpair()
        self._child = os.fork()
        if self._child == 0:
            ours.close()
            self._serve(theirs)
        theirs.close()
        self._socket = ours

    @contextmanager
    def place(self, workshop: Path) -> Iterator[Path]:
        """Where to make the file: in the directory, if this user may write there, else in a private one."""
        if self._socket is None or os.access(self._directory, os.W_OK | os.X_OK):
            self._end()
            yield self._directory
            return
        from tempfile import TemporaryDirectory

        try:
            with TemporaryDirectory(prefix=".delivery-", dir=workshop) as made:
                yield Path(made)
        finally:
            self._end()

    def send(self, made: Path) -> list[str] | None:
        """Have a file that was made in `place` put into the directory; None: it is there. Raises DeliveryFailed."""
        if self._socket is None:
            return None
        answer = b""
        try:
            with made.open("rb") as file:
                header = {"name": made.name, "bytes": os.fstat(file.fileno()).st_size}
                self._socket.sendall(json.dumps(header).encode() + b"\n")
                self._socket.sendfile(file)
            self._socket.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass  # it says why
        with suppress(ConnectionError):
            while piece := self._socket.recv(COPY_BYTES):
                answer += piece
        said = json.loads(answer or b'{"error": "the process that should write it has ended"}')
        if "error" in said:
            hint = "name a file that is not there, in a directory with space; check its mode"
            raise DeliveryFailed(f"{self._directory / made.name}: {said['error']}", hint=hint)
        return [str(name) for name in said["done"]]

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            os.waitpid(self._child, 0)

    def _serve(self, peer: socket.socket) -> NoReturn:
        said: dict[str, object] = {"error": "it was ended"}
        try:
            drop_to_owner_of(self._directory)
            with peer.makefile("rb") as source:
                header = source.readline(HEADER_BYTES_MAX)
                if header:
                    found = json.loads(header)
                    self._take(source, str(found["name"]), int(found["bytes"]))
                    said = {"done": self._afterwards()}
        except (OSError, ValueError, KeyError, TypeError, RootRefused) as error:
            said = {"error": getattr(error, "strerror", None) or str(error)}
        finally:
            try:
                peer.sendall(json.dumps(said).encode())
            finally:
                os._exit(0)

    def _take(self, source: IO[bytes], name: str, size_bytes: int) -> None:
        if name in ("", ".", "..") or "/" in name or not self._fits(name):
            raise ValueError(f"no file of the name {name!r} was expected")
        self._directory.mkdir(parents=True, exist_ok=True)
        target, part = self._directory / name, self._directory / f".{name}.{os.getpid()}.part"
        if os.path.lexists(target):
            raise FileExistsError(0, "it exists")
        descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC, 0o640)
        try:
            with open(descriptor, "wb") as file:
                while size_bytes > 0:
                    piece = source.read(min(COPY_BYTES, size_bytes))
                    if not piece:
                        raise ValueError("the copy broke off")
                    file.write(piece)
                    size_bytes -= len(piece)
                file.flush()
                os.fsync(file.fileno())
            part.rename(target)
        finally:
            part.unlink(missing_ok=True)
        sync(self._directory)
