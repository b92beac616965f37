"""The routes: what each takes, queries and answers. Their documents: docs/api.md and GET /openapi.json."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from storelink.contract.errors import ContractViolation
from storelink.contract.limits import KEY_CHARS_MAX
from storelink.contract.times import BadTime, epoch_seconds
from storelink.host.logs import get_logger
from storenode.api import metrics, openapi, problems, queries
from storenode.api.answers import document, json_body, parameters, whole_number, with_etag
from storenode.api.connection_pool import ConnectionPool
from storenode.api.limits import BODY_BYTES_MAX, SEARCH_CHARS_MAX, SEARCH_LIMIT, SEARCH_LIMIT_MAX
from storenode.api.metrics import Metrics
from storenode.api.posting import Posting
from storenode.api.problems import Refused
from storenode.config import Settings
from storenode.core import states
from storenode.errors import BadArgument, NotFound, ReplicaMissing, StorenodeError
from storenode.outbox.status import outbox_status
from storenode.replica.status import status_document

log = get_logger()

Handler = Callable[[Request], Awaitable[Response]]


class Api:
    """What the routes share; `app` is the ASGI application."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = ConnectionPool(settings.db)
        self._posting = Posting(settings.outbox_path, settings.outbox_max_bytes)
        self._metrics = Metrics()
        routes = [
            Route(path.replace("}", ":path}"), self._with_answer(path, handler), methods=[method])
            for method, path, handler in (
                ("GET", "/prices/{sku}", self._price),
                ("GET", "/products/{sku}", self._product),
                ("GET", "/products", self._products),
                ("GET", "/search", self._search),
                ("GET", "/freshness", self._freshness),
                ("GET", "/status", self._status),
                ("GET", "/health", self._health),
                ("GET", "/metrics", self._exposition),
                ("POST", "/outbox", self._emit),
                ("GET", "/openapi.json", self._openapi),
            )
        ]
        self._fresh = partial(queries.freshness, path=settings.db, contexts=settings.registry)
        self.app = Starlette(routes=routes, exception_handlers={HTTPException: self._no_route})
        self.app.router.redirect_slashes = False

    async def _product(self, request: Request) -> Response:
        parameters(request)
        return with_etag(request, self._pool.look_up(partial(queries.product, sku=_sku(request))))

    async def _products(self, request: Request) -> Response:
        gtin = parameters(request, "gtin").get("gtin", "")
        if not 1 <= len(gtin) <= KEY_CHARS_MAX:
            raise BadArgument(f"gtin must have 1 to {KEY_CHARS_MAX} characters", hint="/products?gtin=4006381333931")
        return with_etag(request, self._pool.look_up(partial(queries.products_by_gtin, gtin=gtin)))

    async def _price(self, request: Request) -> Response:
        at = parameters(request, "at").get("at")
        at_s = None if at is None else _at_s(at)
        query = partial(queries.price, sku=_sku(request), at_s=at_s)
        return with_etag(request, self._pool.look_up(query, one_statement=True))

    async def _search(self, request: Request) -> Response:
        given = parameters(request, "q", "limit")
        text = given.get("q", "")
        if not 1 <= len(text) <= SEARCH_CHARS_MAX:
            raise BadArgument(f"q must have 1 to {SEARCH_CHARS_MAX} characters", hint="/search?q=org+mil")
        limit = whole_number(given["limit"], "limit", 1, SEARCH_LIMIT_MAX) if "limit" in given else SEARCH_LIMIT
        return with_etag(request, await self._pool.run(partial(queries.search, text=text, limit=limit)))

    async def _freshness(self, request: Request) -> Response:
        parameters(request)
        return document(self._pool.look_up(self._fresh))

    async def _status(self, request: Request) -> Response:
        parameters(request)
        return document(await self._pool.run(partial(self._status_document, counted=True)))

    async def _health(self, request: Request) -> Response:
        demanded = whole_number(parameters(request, "fresh").get("fresh", "0"), "fresh", 0, 1)
        state = self._pool.look_up(self._fresh)["state"]
        verdict = states.exit_code(state)
        if verdict == states.UNUSABLE or (demanded and verdict != states.LIVE):
            code = "not_usable" if verdict == states.UNUSABLE else "not_fresh"
            raise Refused(code, f"this store is {state}", hint="storenode status")
        return document({"state": state, "usable": True, "fresh": verdict == states.LIVE})

    async def _exposition(self, request: Request) -> Response:
        parameters(request)
        try:
            status = await self._pool.run(partial(self._status_document, counted=False))
        except StorenodeError:
            status = None  # the API's own metrics are answered all the same
        return Response(self._metrics.page(status), headers={"content-type": metrics.CONTENT_TYPE})

    async def _emit(self, request: Request) -> Response:
        parameters(request)
        body = await json_body(request, BODY_BYTES_MAX)
        return document(await self._posting.append(body), HTTPStatus.CREATED)

    async def _openapi(self, request: Request) -> Response:
        parameters(request)
        return with_etag(request, openapi.document())

    async def _no_route(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            refused = Refused("method_not_allowed", f"{request.method} is not for this route")
        else:
            refused = Refused("not_found", "there is no such route", hint="GET /openapi.json lists them")
        response = problems.error_response(refused)
        response.headers.update(error.headers or {})
        self._metrics.observe("other", response.status_code, 0.0)
        return response

    def _status_document(self, db: sqlite3.Connection, *, counted: bool) -> dict[str, Any]:
        """The status document; `counted`: with `rows`, which are too slow for a scrape every few seconds."""
        try:
            found = status_document(self._settings.db, self._settings.registry, db, counted=counted)
        except FileNotFoundError as error:  # moved away this very moment
            raise ReplicaMissing(str(error), hint="storenode status") from error
        found["outbox"] = outbox_status(self._settings.outbox_path)
        return {"store_id": found.pop("store_id"), "state": states.overall(found["streams"]), **found}

    def _with_answer(self, path: str, handler: Handler) -> Handler:
        """Make every outcome of a route an answer of ours, and count and time it."""

        async def answered(request: Request) -> Response:
            began_s = time.perf_counter()
            try:
                response = await handler(request)
            except ClientDisconnect:
                response = Response(None, HTTPStatus.BAD_REQUEST)  # nobody reads it
            except (StorenodeError, ContractViolation) as error:
                response = problems.error_response(problems.refused(error))
            except Exception:
                log.exception("request.failed", route=path)
                response = problems.error_response(Refused("failed", "this is a bug of ours", hint="see the log"))
            self._metrics.observe(path, response.status_code, time.perf_counter() - began_s)
            return response

        return answered


def _sku(request: Request) -> str:
    """The complete rest of the path: a route's pattern leaves out a line feed at the end."""
    sku: str = request.path_params["sku"]
    if not request.scope["path"].endswith(sku):
        raise NotFound("no such sku in this replica")
    return sku


def _at_s(text: str) -> int:
    try:
        return epoch_seconds(text, any_instant=True)
    except BadTime as error:
        hint = "a + in a URL is a blank: write %2B01:00, or Z" if " " in text else error.hint
        raise BadArgument(error.detail, hint=hint) from None
