"""What a client is told when it does not get what it asked for: a status, and one document for all.

    400 bad_request         the question is wrong; asking again will not help
    403 host_refused        the Host header names somebody else (DNS rebinding)
    404 not_found           no such row, or no such route
    405 method_not_allowed  the route knows other methods
    408 request_timeout     the request did not come to an end
    413 too_large           its body, or the entry in it
    414 uri_too_long        its path with its query
    415 not_json            its body is not `application/json`
    500 failed              a bug; the log has it
    503 everything else     not now: try again, or turn to another source
"""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from starlette.responses import Response

from contract.errors import ContractViolation
from storenode import errors

RETRY_AFTER_S = 1


class Refused(errors.StorenodeError):
    """A request that is answered with `status` and `code`."""

    def __init__(self, status: int, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status, self.code = status, code


class TookTooLong(Refused):
    """The deadline of a request has passed."""

    def __init__(self) -> None:
        super().__init__(
            HTTPStatus.SERVICE_UNAVAILABLE, "deadline", "the answer took too long", hint="try again; storenode status"
        )


_BY_CLASS: dict[type[Exception], tuple[int, str]] = {
    errors.BadArgument: (HTTPStatus.BAD_REQUEST, "bad_request"),
    errors.NotFound: (HTTPStatus.NOT_FOUND, "not_found"),
    errors.ReplicaMissing: (HTTPStatus.SERVICE_UNAVAILABLE, "replica_missing"),
    errors.ReplicaBusy: (HTTPStatus.SERVICE_UNAVAILABLE, "replica_busy"),
    errors.ReplicaUnwritable: (HTTPStatus.SERVICE_UNAVAILABLE, "replica_unreadable"),
    errors.ReplicaDamaged: (HTTPStatus.SERVICE_UNAVAILABLE, "replica_damaged"),
    errors.OutboxFull: (HTTPStatus.SERVICE_UNAVAILABLE, "outbox_full"),
    errors.OutboxBusy: (HTTPStatus.SERVICE_UNAVAILABLE, "outbox_busy"),
    errors.OutboxUnwritable: (HTTPStatus.SERVICE_UNAVAILABLE, "outbox_unwritable"),
    errors.OutboxDamaged: (HTTPStatus.SERVICE_UNAVAILABLE, "outbox_damaged"),
}


def refused(error: errors.StorenodeError | ContractViolation) -> Refused:
    """What an error of ours means to a client."""
    match error:
        case Refused():
            return error
        case errors.BadArgument(__cause__=ContractViolation() as violation):
            return refused(violation)
        case ContractViolation():
            status, code = _BY_CLASS[errors.BadArgument]
            if error.reason == "oversized":
                status, code = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large"
            return Refused(status, code, f"{error.field or 'body'}: {error.detail}", hint="see GET /openapi.json")
        case _:
            status, code = _BY_CLASS.get(type(error), (HTTPStatus.INTERNAL_SERVER_ERROR, "failed"))
            return Refused(status, code, str(error), hint=error.hint)


def told(error: Refused) -> Response:
    """The answer: `{"error": {"code", "message", "hint"}}`."""
    body = {"error": {"code": error.code, "message": str(error), "hint": error.hint}}
    headers = {"cache-control": "no-store"}
    if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        headers["connection"] = "close"  # what is still to come of the body is not read
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = str(RETRY_AFTER_S)
    return Response(msgspec.json.encode(body), error.status, headers, "application/json")
