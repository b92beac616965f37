"""The API described in OpenAPI 3.1, as `GET /openapi.json` serves it; docs/api.md explains it with examples to type."""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from storenode.api.limits import SEARCH_CHARS_MAX, SEARCH_LIMIT, SEARCH_LIMIT_MAX
from storenode.api.schemas import ACCEPTED_EXAMPLE, ENTRY_EXAMPLE, SCHEMAS, SKU, named

JSON = "application/json"
_ETAG = {"ETag": {"description": "Of this answer; weak.", "schema": {"type": "string"}, "required": True}}
_RETRY = {"Retry-After": {"description": "In seconds.", "schema": {"type": "integer"}, "required": True}}
_REFUSALS = {
    400: "The request is wrong; sending it again will not help.",
    403: "The Host header names another machine.",
    404: "There is no such row.",
    413: "More than an entry may have.",
    414: "Path and query are too long.",
    415: "The body is not called application/json.",
    503: "Not now: no replica yet, it cannot be read, or the answer took more than a second.",
}


@cache
def document() -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "storenode",
            "version": version("storenode"),
            "summary": "A store's replica of the catalog, over HTTP on its own machine.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": _paths(),
        "components": {"schemas": SCHEMAS, "responses": _responses()},
    }


def _paths() -> dict[str, Any]:
    sku = _parameter("path", "sku", SKU, "The article's number; write / as %2F.", "4011")
    return {
        "/products/{sku}": {"get": _get("product", "One product, with its price now.", "Product", [sku], 404)},
        "/products": {"get": _get("productsByGtin", "Products by gtin, as scanned.", "Products", [_GTIN])},
        "/prices/{sku}": {"get": _get("price", "The price now, or at a time.", "Price", [sku, _AT], 404)},
        "/search": {"get": _get("search", "Products by the beginnings of words.", "Found", [_Q, _LIMIT])},
        "/freshness": {"get": _get("freshness", "How far to trust what is read.", "Freshness", tagged=False)},
        "/status": {"get": _get("status", "The whole status document.", "Status", tagged=False)},
        "/health": {"get": _get("health", "200 when usable, else 503.", "Health", [_FRESH], tagged=False)},
        "/metrics": {"get": _metrics()},
        "/outbox": {"post": _post()},
        "/openapi.json": {
            "get": {
                "operationId": "openapi",
                "summary": "This document.",
                "responses": {"200": {"description": "OpenAPI 3.1.", "content": {JSON: {"schema": {"type": "object"}}}}}
                | _refusals(400, 403, 414),
            }
        },
    }


def _parameter(place: str, name: str, schema: Any, description: str, example: Any, *, required: bool = True) -> Any:
    return {
        "name": name,
        "in": place,
        "required": required,
        "schema": schema,
        "description": description,
        "example": example,
    }


_GTIN = _parameter("query", "gtin", SKU, "EAN, UPC or GTIN as the catalog has it.", "4006381333931")
_AT = _parameter(
    "query",
    "at",
    {"type": "string", "format": "date-time"},
    "Now if left out; a date is its beginning in UTC.",
    "2026-12-24T08:00:00Z",
    required=False,
)
_Q = _parameter(
    "query",
    "q",
    {"type": "string", "minLength": 1, "maxLength": SEARCH_CHARS_MAX},
    "Words, which may be cut short; accents and case do not count.",
    "org mil",
)
_LIMIT = _parameter(
    "query",
    "limit",
    {"type": "integer", "minimum": 1, "maximum": SEARCH_LIMIT_MAX, "default": SEARCH_LIMIT},
    "Products at most.",
    20,
    required=False,
)
_FRESH = _parameter(
    "query", "fresh", {"type": "integer", "enum": [0, 1], "default": 0}, "1: 200 only when live.", 1, required=False
)


def _get(ident: str, summary: str, schema: str, parameters: Any = (), *codes: int, tagged: bool = True) -> Any:
    good: dict[str, Any] = {"description": summary, "content": {JSON: {"schema": named(schema)}}}
    responses = {"200": good | ({"headers": _ETAG} if tagged else {})} | _refusals(400, 403, 414, 503, *codes)
    if tagged:
        responses["304"] = {"description": "As If-None-Match names it.", "headers": _ETAG}
    return {"operationId": ident, "summary": summary, "parameters": list(parameters), "responses": responses}


def _metrics() -> dict[str, Any]:
    good = {"description": "Text format 0.0.4.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {
        "operationId": "metrics",
        "summary": "For Prometheus.",
        "responses": {"200": good} | _refusals(400, 403, 414, 503),
    }


def _post() -> dict[str, Any]:
    return {
        "operationId": "emit",
        "summary": "Tell HQ something. 201 means: on disk, and sent when the line is there.",
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": named("Entry"), "examples": {"sale": {"value": ENTRY_EXAMPLE}}}},
        },
        "responses": {
            "201": {
                "description": "Accepted.",
                "content": {JSON: {"schema": named("Accepted"), "examples": {"sale": {"value": ACCEPTED_EXAMPLE}}}},
            }
        }
        | _refusals(400, 403, 413, 414, 415, 503),
    }


def _refusals(*codes: int) -> dict[str, Any]:
    return {str(code): {"$ref": f"#/components/responses/{HTTPStatus(code).name}"} for code in codes}


def _responses() -> dict[str, Any]:
    return {
        HTTPStatus(code).name: {"description": description, "content": {JSON: {"schema": named("Error")}}}
        | ({"headers": _RETRY} if code == HTTPStatus.SERVICE_UNAVAILABLE else {})
        for code, description in _REFUSALS.items()
    }
