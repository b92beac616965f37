"""Bytes to bodies and back: bounded zstd, strict JSON. Whatever is wrong raises ContractViolation, nothing else."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import msgspec
import zstandard

from storelink.contract.errors import ContractViolation
from storelink.contract.limits import BODY_BYTES_MAX, COMPRESS_ABOVE_BYTES, MESSAGE_BYTES_MAX

JSON_TYPE = "application/json"
ZSTD_TYPE = "application/zstd"
"""MQTT content type (CloudEvents `datacontenttype`) of a zstd frame that holds the JSON."""

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
BEGINNING_BYTES = 64

T = TypeVar("T", bound=msgspec.Struct)

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""An escaped NUL, and not an escaped backslash before `u0000`."""


def pack(body: bytes) -> tuple[bytes, str]:
    """
    Compress a body where that pays; return (payload, content type).

    Raises:
        ContractViolation: `oversized`, before or after compression: `unpack` would refuse it.
    """
    check_body_size(len(body))
    if len(body) <= COMPRESS_ABOVE_BYTES:
        return body, JSON_TYPE
    payload = zstandard.ZstdCompressor(level=3, write_content_size=True).compress(body)
    check_payload_size(len(payload))
    return payload, ZSTD_TYPE


def check_payload_size(size_bytes: int) -> None:
    """Raise ContractViolation for a payload that no side sends or takes."""
    if size_bytes > MESSAGE_BYTES_MAX:
        raise ContractViolation("oversized", f"payload of {size_bytes} bytes; at most {MESSAGE_BYTES_MAX}")


def check_body_size(size_bytes: int) -> None:
    """Raise ContractViolation for a body that is too large before compression, however small it travels."""
    if size_bytes > BODY_BYTES_MAX:
        raise ContractViolation("oversized", f"body of {size_bytes} bytes before compression; at most {BODY_BYTES_MAX}")


def check_count(count: int, most: int, what: str) -> None:
    """Raise ContractViolation for more items than one message may hold."""
    if count > most:
        raise ContractViolation("oversized", f"{count} {what}; a message holds at most {most}", field=what)


def body_bytes(payload: bytes) -> int:
    """The size before compression of a payload of ours, read from the frame's header."""
    return zstandard.get_frame_parameters(payload).content_size if payload.startswith(ZSTD_MAGIC) else len(payload)


def content_type_of(payload: bytes) -> str:
    """The content type that a payload of ours was packed with."""
    return ZSTD_TYPE if payload.startswith(ZSTD_MAGIC) else JSON_TYPE


def unpack(payload: bytes, content_type: str | None) -> bytes:
    """Return the JSON body of a payload; at most MESSAGE_BYTES_MAX in, BODY_BYTES_MAX out."""
    check_payload_size(len(payload))
    if content_type == JSON_TYPE:
        return payload
    if content_type != ZSTD_TYPE:
        raise ContractViolation("content_type", f"{content_type!r} is neither {JSON_TYPE} nor {ZSTD_TYPE}")
    try:
        frame = zstandard.get_frame_parameters(payload)
        # A frame that hides its size, or declares too much of it, is refused before a byte is allocated.
        if frame.content_size in (0, zstandard.CONTENTSIZE_UNKNOWN) or frame.dict_id:
            raise ContractViolation("bad_zstd", "zstd frame of no declared size, or with a dictionary")
        check_body_size(frame.content_size)
        if frame.window_size > 2 * BODY_BYTES_MAX:
            raise ContractViolation("oversized", f"zstd frame declares a window of {frame.window_size} bytes")
        body = zstandard.ZstdDecompressor().decompress(payload, max_output_size=BODY_BYTES_MAX, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ContractViolation("bad_zstd", str(error)) from error
    if len(body) != frame.content_size:
        raise ContractViolation("bad_zstd", "zstd frame is not as long as it declares")
    return body


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode one JSON object strictly typed. Bulk members are `msgspec.Raw` and are decoded by `decode_part`."""
    if b"\\u0000" in body and _NUL.search(body):
        raise ContractViolation("bad_json", "text with a NUL character")
    try:
        found = decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ContractViolation("wrong_type", str(error)[:300]) from error
    _refuse_duplicates(found, body)
    return found


def decode_part(decoder: msgspec.json.Decoder[Any], raw: msgspec.Raw, what: str) -> Any:
    """Decode a bulk member: arrays and scalars only, so it needs no search for duplicate keys."""
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ContractViolation("wrong_type", f"{what}: {str(error)[:300]}", field=what) from error


def strict_json(text: str | bytes) -> Any:
    """Parse JSON refusing duplicate keys, NaN, Infinity and lone surrogates."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        msgspec.json.encode(value)
    except ContractViolation:
        raise
    except (ValueError, RecursionError, OverflowError) as error:
        raise ContractViolation("bad_json", str(error)[:200]) from error
    return value


def _refuse_duplicates(found: msgspec.Struct, body: bytes) -> None:
    """msgspec keeps the last of two equal keys; parse what is left of the body without its bulk to find them."""
    rest = body
    for name in found.__struct_fields__:
        raw = getattr(found, name)
        if isinstance(raw, msgspec.Raw) and len(raw) > 2:
            rest = _without(rest, bytes(raw))
    strict_json(rest)


def _without(body: bytes, part: bytes) -> bytes:
    """Put a 0 in a part's place; it is found by its first bytes, which is much faster than by all of them."""
    at = body.find(part[:BEGINNING_BYTES])
    while at >= 0 and not body.startswith(part, at):
        at = body.find(part[:BEGINNING_BYTES], at + 1)
    return body if at < 0 else body[:at] + b"0" + body[at + len(part) :]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ContractViolation("duplicate_key", "an object names a key twice")
    return result


def _refuse_constant(text: str) -> Any:
    raise ContractViolation("bad_json", f"{text} is not JSON")
