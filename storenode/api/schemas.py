"""The documents of the API as JSON Schema (2020-12, as OpenAPI 3.1 has it): exact, no key but those named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storelink.contract.contexts import PRODUCT
from storelink.contract.limits import ENTRY_TYPE_CHARS_MAX, KEY_CHARS_MAX
from storenode.api.problems import CODES
from storenode.core.clock_rules import BEHIND, CORRECTED, HELD, OK, SUSPECT, UNCONFIRMED
from storenode.core.states import STATES

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
COUNT: Schema = {"type": "integer", "minimum": 0}
COUNT_OR_NULL: Schema = {"type": ["integer", "null"], "minimum": 0}
TIME: Schema = {"type": "string", "format": "date-time", "description": "RFC 3339, UTC, whole seconds"}
TIME_OR_NULL: Schema = TIME | {"type": ["string", "null"]}
CODE: Schema = {"type": "string", "enum": list(CODES)}
CLOCK: Schema = {"type": "string", "enum": [OK, CORRECTED, UNCONFIRMED, SUSPECT, HELD, BEHIND]}
STATE: Schema = {"type": "string", "enum": list(STATES)}
SKU: Schema = {"type": "string", "minLength": 1, "maxLength": KEY_CHARS_MAX}
MINOR: Schema = {"type": "integer", "minimum": 0, "description": "in the currency's minor unit"}


def exact(properties: Mapping[str, Schema], description: str, example: Any = None) -> Schema:
    """An object with these members, all of them, and no other."""
    schema = {
        "type": "object",
        "description": description,
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
    return schema if example is None else schema | {"examples": [example]}


def named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def by_name(each: Schema) -> Schema:
    return {"type": "object", "additionalProperties": each}


PRICE_EXAMPLE = {
    "sku": "4011",
    "amount_minor": 199,
    "currency": "EUR",
    "kind": "regular",
    "scope": "all",
    "starts_at": "2026-01-01T00:00:00Z",
    "ends_at": None,
}
PRODUCT_EXAMPLE = {
    "scope": "all",
    "seq": 17,
    **dict.fromkeys((*PRODUCT.key_names, *PRODUCT.value_names)),
    "sku": "4011",
    "gtin": "4006381333931",
    "name": "Organic Bananas",
    "pack_size": "1 kg",
    "attributes": {"organic": True},
    "price": PRICE_EXAMPLE,
}
STREAM_EXAMPLE = {
    "state": "live",
    "position": 881,
    "head_seq": 881,
    "lag_events": 0,
    "as_of": "2026-01-01T08:00:00Z",
    "stale_seconds": 2,
}
ENTRY_EXAMPLE = {"type": "sale.total", "data": {"till": 3, "amount_minor": 1299}}
ACCEPTED_EXAMPLE = {
    "epoch": "019b76da1000-0c0ffee0",
    "seq": 7,
    "type": "sale.total",
    "time": "2026-01-01T08:00:00Z",
}
ERROR_EXAMPLE = {
    "error": {"code": "not_found", "message": "no product 9 in this replica", "hint": "is it fresh? storenode status"}
}

_STREAM: dict[str, Schema] = {
    "state": STATE,
    "position": COUNT,
    "head_seq": COUNT,
    "lag_events": COUNT,
    "as_of": TIME_OR_NULL,
    "stale_seconds": COUNT_OR_NULL,
}
_COLUMNS: dict[str, Schema] = {
    column.name: {"type": ["object", "null"]} if column.kind == "json" else TEXT_OR_NULL for column in PRODUCT.values
}

SCHEMAS: dict[str, Schema] = {
    "Price": exact(
        {
            "sku": SKU,
            "amount_minor": MINOR,
            "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
            "kind": TEXT,
            "scope": TEXT,
            "starts_at": TIME,
            "ends_at": TIME_OR_NULL,
        },
        "The price in force: regular, promotion or clearance, of the most specific scope that has one.",
        PRICE_EXAMPLE,
    ),
    "Product": exact(
        {"scope": TEXT, "seq": COUNT, "sku": SKU, **_COLUMNS, "price": {"anyOf": [named("Price"), {"type": "null"}]}},
        "A product's row in the most specific scope that has it, and its price now.",
        PRODUCT_EXAMPLE,
    ),
    "Products": exact(
        {"products": {"type": "array", "items": named("Product")}},
        "The products that bear a gtin; usually one or none.",
        {"products": [PRODUCT_EXAMPLE]},
    ),
    "Found": exact(
        {
            "products": {
                "type": "array",
                "items": exact(
                    {
                        "sku": SKU,
                        "gtin": TEXT_OR_NULL,
                        "name": TEXT_OR_NULL,
                        "brand": TEXT_OR_NULL,
                        "pack_size": TEXT_OR_NULL,
                        "department": TEXT_OR_NULL,
                        "category": TEXT_OR_NULL,
                        "amount_minor": COUNT_OR_NULL,
                        "currency": TEXT_OR_NULL,
                    },
                    "A product with its price now.",
                ),
            },
        },
        "What a search found, the best matches first.",
    ),
    "Freshness": exact(
        {"state": STATE, "clock": CLOCK, "streams": by_name(exact(_STREAM, "How far a stream is."))},
        "How far to trust what is read. `state`: the worst of the streams that count.",
        {"state": "live", "clock": "ok", "streams": {"price/all": STREAM_EXAMPLE, "product/all": STREAM_EXAMPLE}},
    ),
    "Status": {
        "type": "object",
        "description": "The document of `storenode status --json`; later versions may add members.",
        "properties": {
            "store_id": TEXT_OR_NULL,
            "state": STATE,
            "connected": {"type": "boolean"},
            "pid": COUNT_OR_NULL,
            "uptime_seconds": COUNT_OR_NULL,
            "streams": by_name({"type": "object", "required": list(_STREAM)}),
            "outbox": {"type": "object", "required": ["pending", "oldest_age_seconds", "acked_seq", "refused"]},
            "contexts": by_name({"type": "object", "required": ["problem"]}),
            "clock": {"type": "object", "required": ["skew_seconds", "verdict"]},
            "database": {"type": "object", "required": ["path", "bytes", "wal_bytes", "free_bytes"]},
            "counters": by_name({"type": "integer"}),
        },
        "required": [
            "store_id",
            "state",
            "connected",
            "pid",
            "uptime_seconds",
            "streams",
            "contexts",
            "outbox",
            "clock",
            "database",
            "counters",
        ],
    },
    "Health": exact(
        {"state": STATE, "usable": {"const": True}, "fresh": {"type": "boolean"}},
        "The store can be sold by; `fresh`: it is live.",
        {"state": "live", "usable": True, "fresh": True},
    ),
    "Entry": exact(
        {
            "type": {
                "type": "string",
                "pattern": rf"^[A-Za-z0-9]([A-Za-z0-9._-]{{0,{ENTRY_TYPE_CHARS_MAX - 2}}}[A-Za-z0-9])?$",
            },
            "data": {"description": "Any JSON value of at most 64 KiB, nested at most 32 deep, integers of 63 bits."},
        },
        "What the store tells HQ.",
        ENTRY_EXAMPLE,
    ),
    "Accepted": exact(
        {"epoch": TEXT, "seq": {"type": "integer", "minimum": 1}, "type": TEXT, "time": TIME},
        "The entry is on disk; (epoch, seq) is its name for ever.",
        ACCEPTED_EXAMPLE,
    ),
    "Error": exact(
        {"error": exact({"code": CODE, "message": TEXT, "hint": TEXT}, "`code` for programs, the rest for people.")},
        "Every answer of 400 and above.",
        ERROR_EXAMPLE,
    ),
}
