"""Which answers a route can give, for the API's description: derived from its row of the table,
so that a new route is described truly without saying anything twice."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from lamassu.platform.http.errors import JSON_TYPE
from lamassu.platform.http.routing import AccessKind, MountedRoute

_Described = dict[str, Any]

JSON = JSON_TYPE.partition(";")[0]
_WITHOUT_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})

ERROR_SCHEMA: _Described = {
    "type": "object",
    "required": ["err", "code", "field"],
    "additionalProperties": False,
    "properties": {
        "err": {"type": "string", "description": "What happened and what to do, for people"},
        "code": {"type": "string", "description": "What happened, for programs"},
        "field": {"type": ["string", "null"], "description": "Dotted path of the field to blame"},
        "request_id": {"type": "string", "description": "With a 5xx: what to tell the operator"},
    },
}

_REFUSALS: Mapping[int, str] = {
    400: "The request cannot be read, or breaks a rule that `field` names",
    401: "No client certificate that is known here was shown; the connection is closed",
    403: "The caller may not do this, or the request comes from a page of another site",
    404: "What the request names does not exist",
    408: "The body did not arrive in time; the connection is closed",
    409: "The request contradicts the present state",
    413: "The request is larger than may be; the connection is closed",
    422: "The Idempotency-Key was used for another request before, or the thing is in a state "
    "in which this is not done to it",
    429: "This was asked too often; `Retry-After` says when to try again",
    500: "A fault of the platform, which its log explains under `request_id`",
    503: "Something that the platform needs is out of reach; `Retry-After` may say when to try "
    "again",
}
_REQUEST_ID = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
_RETRY_AFTER = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}

HEADERS: _Described = {
    "X-Request-Id": {
        "description": "The request's own id if it sent one that can be logged, else a new one",
        "required": True,
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 0}},
    "Location": {
        "description": "Where what waits can be asked for",
        "required": True,
        "schema": {"type": "string"},
    },
    "Idempotency-Replayed": {
        "description": "That this is the answer to the first request with the same key",
        "schema": {"type": "string"},
    },
}
_ERROR = {"$ref": "#/components/schemas/Error"}
_REF = "#/components/responses/{name}"


def shared_responses() -> _Described:
    """The refusals, each described once."""
    return {
        f"Refused{status}": {
            "description": text,
            "headers": _REQUEST_ID | (_RETRY_AFTER if status in (429, 503) else {}),
            "content": {JSON: {"schema": _ERROR}},
        }
        for status, text in _REFUSALS.items()
    }


def responses_of(mounted: MountedRoute, schemas: Mapping[int, _Described]) -> _Described:
    """Every status that the route can answer; `schemas` are those of its answers in JSON."""
    route = mounted.route
    found: dict[int, _Described] = {
        status: {"$ref": _REF.format(name=f"Refused{status}")} for status in _refusals(mounted)
    }
    for status, text in {route.status: "Done", **route.other_statuses}.items():
        found[status] = {
            "description": text,
            "headers": _REQUEST_ID | _own_headers(mounted),
            **_content(mounted, schemas.get(status), status),
        }
    if route.deferrable:
        found[202] = {
            "description": "Nothing was done yet: approvers have to agree to what `Location` names",
            "headers": _REQUEST_ID | {"Location": {"$ref": "#/components/headers/Location"}},
            "content": {JSON: {"schema": {"type": "object"}}},
        }
    return {str(status): found[status] for status in sorted(found)}


def _content(mounted: MountedRoute, schema: _Described | None, status: int) -> _Described:
    if status in _WITHOUT_BODY:
        return {}
    if schema is None and status >= 400:
        schema = _ERROR
    if schema is not None:
        return {"content": {JSON: {"schema": schema}}}
    octets = {"schema": {"type": "string", "format": "binary"}}
    return {"content": dict.fromkeys(mounted.route.media_types, octets)}


def _own_headers(mounted: MountedRoute) -> _Described:
    route = mounted.route
    headers: _Described = {
        name: {"description": text, "schema": {"type": "string"}}
        for name, text in route.headers.items()
    }
    if route.creates:
        headers["Idempotency-Replayed"] = {"$ref": "#/components/headers/Idempotency-Replayed"}
    return headers


def _refusals(mounted: MountedRoute) -> set[int]:
    """Statuses of errors, by what is done before and in a handler of this kind."""
    route = mounted.route
    public = route.access.kind is AccessKind.PUBLIC
    refused = set() if public and not mounted.path.startswith("/api/") else {401}
    if route.encode_error is not None:
        return refused  # it says its errors in an answer of its own
    refused |= {400, 413, 500, 503, *route.refuses}
    if not public:
        refused |= {403}
    if "{" in mounted.path or route.method != "GET" or route.access.kind is AccessKind.EST:
        refused |= {404}
    if route.method != "GET":
        refused |= {408, 409, 422}
    if route.creates:
        refused |= {429}
    return refused
