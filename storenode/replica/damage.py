"""Whose file is it that does not open as a replica: ours, damaged, or somebody else's."""

from __future__ import annotations

MAGIC = b"SQLite format 3\0"
IDENT_AT = 68
"""Where SQLite's header has the application id, big-endian, 4 bytes."""


def is_ours(header: bytes, application_id: int, *, served_here: bool) -> bool:
    """
    Whether a file may be set aside.

    Args:
        header: its first 100 bytes, fewer when it is shorter.
        served_here: a replica of this name was open before; counts only where the header says nothing.
    """
    if header[IDENT_AT : IDENT_AT + 4] == application_id.to_bytes(4, "big"):
        return True
    return served_here and not header.startswith(MAGIC)
