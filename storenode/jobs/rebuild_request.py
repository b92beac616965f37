"""The request for a rebuild: a file beside the replica, so that a daemon that does not run yet finds it too.

Only a user who may write in the replica's directory can ask. The daemon looks every second. It removes the file after
it has written the request into the replica, so that a crash in between only asks twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from storelink.contract.errors import ContractViolation
from storelink.contract.streams import Stream, check_stream_name
from storelink.host.files import no_follow
from storenode.errors import ReplicaUnwritable

READ_BYTES_MAX = 65_536


def ask(db: Path, streams: Iterable[Stream]) -> None:
    """Ask the daemon of this replica to fetch streams anew. Raises ReplicaUnwritable."""
    path = rebuild_path(db)
    part = path.with_name(f"{path.name}.part")
    try:
        wanted = sorted({*map(str, streams), *asked(db)})
        with open(part, "w", encoding="utf-8", opener=no_follow) as file:
            file.writelines(f"{name}\n" for name in wanted)
        part.replace(path)
    except OSError as error:
        raise ReplicaUnwritable(
            f"cannot ask for a rebuild: {error.strerror} ({path})", hint="type it as root or as the daemon's user"
        ) from error


def asked(db: Path) -> list[str]:
    """The names of the streams that were asked for; a line that is none is passed over."""
    try:
        with rebuild_path(db).open(encoding="utf-8", errors="replace") as file:
            lines = file.read(READ_BYTES_MAX).split()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            check_stream_name(line)
        except ContractViolation:
            continue
        found.append(line)
    return found


def forget(db: Path) -> None:
    """Remove the request, once it is written into the replica."""
    rebuild_path(db).unlink(missing_ok=True)


def rebuild_path(db: Path) -> Path:
    return db.with_name(f"{db.name}.rebuild")
