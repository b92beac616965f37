"""Only a file that was ours is ever moved away."""

from __future__ import annotations

import pytest

from storenode.replica.file import MAGIC, is_ours
from storenode.replica.schema import APPLICATION_ID


def header(magic: bytes, ident: int) -> bytes:
    return magic.ljust(68, b"\0") + ident.to_bytes(4, "big") + bytes(28)


@pytest.mark.parametrize(
    ("head", "served_here", "ours"),
    [
        (header(MAGIC, APPLICATION_ID), False, True),
        (header(b"\xff" * 16, APPLICATION_ID), False, True),
        (header(MAGIC, 7), True, False),
        (header(MAGIC, 0), True, False),
        (b"name;price", False, False),
        (b"\xff" * 100, True, True),
    ],
)
def test_a_file_is_ours_by_its_mark_or_when_unreadable_by_its_place(head: bytes, served_here: bool, ours: bool) -> None:
    assert is_ours(head, served_here=served_here) is ours
