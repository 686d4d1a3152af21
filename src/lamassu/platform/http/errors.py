"""Errors become statuses here, by one table and nowhere else."""

from __future__ import annotations

import json

from starlette.responses import Response

from lamassu.kernel.errors import (
    Conflict,
    Deferred,
    Forbidden,
    LamassuError,
    Malformed,
    NotFound,
    RequestKeyReused,
    RuleViolation,
    TooLarge,
    TooMany,
    TooSlow,
    Unauthenticated,
    Unavailable,
    WrongState,
)

STATUS: dict[type[LamassuError], int] = {
    Deferred: 202,
    Malformed: 400,
    RuleViolation: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    TooSlow: 408,
    Conflict: 409,
    TooLarge: 413,
    RequestKeyReused: 422,
    WrongState: 422,
    TooMany: 429,
    Unavailable: 503,
}

JSON_TYPE = "application/json; charset=utf-8"
INTERNAL_TEXT = "internal error; give the request id to the operator, whose log has the reason"


class InternalError(LamassuError):
    """A fault of ours. Its text never says which; the log does."""

    default_code = "internal_error"

    def __init__(self) -> None:
        super().__init__(INTERNAL_TEXT)


def status_of(error: LamassuError) -> int:
    """The status of the nearest class in the table; 500 for one that has no row."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return 500


def error_answer(error: LamassuError, *, request_id: str = "") -> Response:
    """`{"err", "code", "field"}`; a 500 carries the request id too.

    What is deferred is no error to its client: the answer is what waits, and where.
    """
    status = status_of(error)
    if isinstance(error, Deferred):
        headers = {"content-type": JSON_TYPE, "location": error.location}
        return Response(json.dumps(dict(error.document)).encode("ascii"), status, headers)
    body: dict[str, str | None] = {"err": error.text, "code": error.code, "field": error.field}
    if status >= 500 and request_id:
        body["request_id"] = request_id
    return error_object(body, status=status, retry_after=error.retry_after)


def error_object(
    body: dict[str, str | None], *, status: int, retry_after: int | None = None
) -> Response:
    """The answer with this error object.

    Written as ASCII: the text may quote what a client sent, lone surrogates included.
    """
    headers = {"content-type": JSON_TYPE}
    if retry_after is not None:
        headers["retry-after"] = str(retry_after)
    return Response(json.dumps(body).encode("ascii"), status, headers)
