"""The answer to a client that does not get what it asked for: a code, its HTTP status, one document."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from storelink.contract.errors import ContractViolation
from storenode import errors

RETRY_AFTER_S = 1

CODES: Mapping[str, int] = {
    "bad_request": 400,
    "host_refused": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "too_large": 413,
    "uri_too_long": 414,
    "not_json": 415,
    "failed": 500,
    "replica_missing": 503,
    "replica_busy": 503,
    "replica_unreadable": 503,
    "replica_damaged": 503,
    "deadline": 503,
    "not_usable": 503,
    "not_fresh": 503,
    "outbox_full": 503,
    "outbox_busy": 503,
    "outbox_unwritable": 503,
    "outbox_damaged": 503,
    "outcome_unknown": 503,
}
"""Every code with its status. 4xx: asking again will not help; 503: not now, try again or elsewhere; 500: a bug."""

_OF_CLASS: Mapping[type[errors.StorenodeError], str] = {
    errors.BadArgument: "bad_request",
    errors.NotFound: "not_found",
    errors.ReplicaMissing: "replica_missing",
    errors.ReplicaBusy: "replica_busy",
    errors.ReplicaUnwritable: "replica_unreadable",
    errors.ReplicaDamaged: "replica_damaged",
    errors.OutboxFull: "outbox_full",
    errors.OutboxBusy: "outbox_busy",
    errors.OutboxUnwritable: "outbox_unwritable",
    errors.OutboxDamaged: "outbox_damaged",
}


class Refused(errors.StorenodeError):
    """A request that is answered with a code; one of `CODES`."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code, self.status = code, CODES[code]


class TookTooLong(Refused):
    """The deadline of a request has passed."""

    def __init__(self) -> None:
        super().__init__("deadline", "the answer took too long", hint="try again; storenode status")


def refused(error: errors.StorenodeError | ContractViolation) -> Refused:
    """What an error of ours means to a client."""
    match error:
        case Refused():
            return error
        case errors.BadArgument(__cause__=ContractViolation() as violation):
            return refused(violation)
        case ContractViolation():
            code = "too_large" if error.reason == "oversized" else "bad_request"
            return Refused(code, f"{error.field or 'body'}: {error.detail}", hint="see GET /openapi.json")
        case _:
            return Refused(_OF_CLASS.get(type(error), "failed"), str(error), hint=error.hint)


def error_response(error: Refused) -> Response:
    """The answer: `{"error": {"code", "message", "hint"}}`."""
    body = {"error": {"code": error.code, "message": str(error), "hint": error.hint}}
    headers = {"cache-control": "no-store"}
    if error.code == "too_large":
        headers["connection"] = "close"  # what is still to come of the body is not read
    if error.status == 503:
        headers["retry-after"] = str(RETRY_AFTER_S)
    return Response(msgspec.json.encode(body), error.status, headers, "application/json")
