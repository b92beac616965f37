"""Answers and requests in HTTP's terms: parameters, bodies, and the ETag by which a client polls cheaply.

The ETag is taken from the answer itself. Positions would not do: a price changes when a step of its schedule begins, a
search when the index has followed, either without a new position; and they would make every client fetch everything
again for one change somewhere in the chain. The query costs less than the request that brings it, so it is made anew.
Weak, because only the meaning is promised, not the bytes of another version.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from storenode.api.problems import Refused
from storenode.errors import BadArgument

JSON_TYPE = "application/json"
DRAINED_BYTES_MAX = 1_048_576
"""So much of a too large body is read, so that its sender gets as far as reading the answer."""

_encode = msgspec.json.Encoder().encode


def document(found: Any, status: int = HTTPStatus.OK) -> Response:
    """An answer that is true only now."""
    return Response(_encode(found), status, {"cache-control": "no-store"}, JSON_TYPE)


def with_etag(request: Request, found: Any) -> Response:
    """An answer with an ETag, or 304 if the client has it already."""
    body = _encode(found)
    tag = f'W/"{blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    if is_known(request.headers.getlist("if-none-match"), tag):
        return Response(None, HTTPStatus.NOT_MODIFIED, headers)
    return Response(body, HTTPStatus.OK, headers, JSON_TYPE)


def is_known(headers: Sequence[str], tag: str) -> bool:
    """Whether If-None-Match names the tag, compared weakly (RFC 9110, 13.1.2)."""
    named = [part.strip() for header in headers for part in header.split(",")]
    return "*" in named or tag.removeprefix("W/") in [part.removeprefix("W/") for part in named]


def parameters(request: Request, *known: str) -> dict[str, str]:
    """
    The query's parameters.

    Raises BadArgument for one that is not known or occurs twice: `?time=` for `?at=` must not get the price of now.
    """
    pairs = request.query_params.multi_items()
    for name, _ in pairs:
        if name not in known:
            takes = f"this route takes {', '.join(known)}" if known else "this route takes none"
            raise BadArgument(f"unknown parameter {name[:40]!r}", hint=takes)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadArgument("a parameter occurs twice", hint="give each once")
    return found


def whole_number(text: str, name: str, least: int, most: int) -> int:
    """Read a parameter that is a whole number. Raises BadArgument."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= most):
        raise BadArgument(f"{name}: {text[:40]!r} is not a whole number from {least} to {most}")
    return int(text)


async def json_body(request: Request, most_bytes: int) -> bytes:
    """
    The body of a request, which must call itself JSON.

    A page of another origin cannot send that type without asking first, which this server never allows.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON_TYPE:
        raise Refused("not_json", f"the body must be {JSON_TYPE}", hint=f"curl -H 'content-type: {JSON_TYPE}'")
    parts, size_bytes = [], 0
    async for part in request.stream():
        size_bytes += len(part)
        if size_bytes > DRAINED_BYTES_MAX:
            break
        if size_bytes <= most_bytes:
            parts.append(part)
    if size_bytes > most_bytes:
        raise Refused("too_large", f"the body has more than {most_bytes} bytes", hint="send less at once")
    return b"".join(parts)
