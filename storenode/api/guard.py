"""Checks every request before its route sees it: the host that it names, the length of its path and query."""

from __future__ import annotations

from collections.abc import Set

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from storenode.api.limits import TARGET_BYTES_MAX
from storenode.api.problems import Refused, error_response
from storenode.core.api_address import host_of

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
"""No page of another origin may read or embed an answer."""


class Guard:
    """ASGI middleware in front of the routes."""

    def __init__(self, app: ASGIApp, hosts: Set[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        if scope["type"] != "http":
            return
        await (self._refusal(scope) or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        if len(scope["raw_path"]) + len(scope["query_string"]) > TARGET_BYTES_MAX:
            return error_response(Refused("uri_too_long", f"more than {TARGET_BYTES_MAX} bytes"))
        named = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(named) == 1 and host_of(named[0]) in self._hosts:
            return None
        return error_response(
            Refused(
                "host_refused",
                "the Host header names another machine, or none",
                hint="call it by the address at which it listens; api_hosts allows further names",
            )
        )
