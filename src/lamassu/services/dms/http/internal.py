"""Enrolment for an EST edge in a process of its own (decision 5).

The peer's chain travels in the body and is judged here, all of it: the edge's word counts only
for possession of the key. A refusal of the device is an answer of ours, not a refusal of the
edge, and therefore travels in the body too.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable

from pydantic import BaseModel, Field
from starlette.responses import Response

from lamassu.kernel import errors
from lamassu.kernel.errors import LamassuError
from lamassu.kernel.identity import ANONYMOUS, Caller, Peer
from lamassu.platform.http import Access, Call, Route, WireModel, json_answer
from lamassu.platform.http.wire import WireBase64
from lamassu.services.dms.contract import CsrPayload, Enrollment, EnrollmentRequest

EST_EDGE = Access.internal("service/est")
_BODY_LIMIT = 512 * 1024  # a chain and a CSR at their bounds, as base64
_PLAIN = r"^[A-Za-z0-9._:%-]*$"  # what goes into events and the trail as it stands


class PeerBody(WireModel):
    """The device's end of its TLS connection."""

    chain: list[WireBase64] = Field(default_factory=list, max_length=32)
    address: str = Field(default="", max_length=256, pattern=_PLAIN)


class EnrollmentBody(WireModel):
    """A request as the edge read it; `fault_*` is what it found wrong with the body."""

    peer: PeerBody
    csr: WireBase64 = b""
    fault_text: str = Field(default="", max_length=1024)
    fault_code: str = Field(default="", max_length=128)
    fault_field: str = Field(default="", max_length=128)
    request_id: str = Field(default="", max_length=128, pattern=_PLAIN)


class Refusal(BaseModel):
    """A `LamassuError` by the name of its class."""

    kind: str
    text: str
    code: str
    field: str | None = None
    retry_after: int | None = None


class EnrollmentAnswer(BaseModel):
    """Certificates (base64 of DER), or why there are none."""

    certificates: list[str] = Field(default_factory=list)
    refusal: Refusal | None = None


def internal_routes(service: Enrollment) -> list[Route]:
    """All internal routes, with their whole paths."""
    handlers = _Handlers(service)
    return [
        Route(
            method="GET",
            path="/internal/dms/{id}/cacerts",
            access=EST_EDGE,
            handler=handlers.ca_certificates,
            summary="CA certificates for an EST edge",
            answer=EnrollmentAnswer,
            documented=False,
        ),
        Route(
            method="POST",
            path="/internal/dms/{id}/enroll",
            access=EST_EDGE,
            handler=handlers.enroll,
            summary="Enroll a device for an EST edge",
            body=EnrollmentBody,
            answer=EnrollmentAnswer,
            body_limit=_BODY_LIMIT,
            documented=False,
        ),
        Route(
            method="POST",
            path="/internal/dms/{id}/reenroll",
            access=EST_EDGE,
            handler=handlers.reenroll,
            summary="Re-enroll a device for an EST edge",
            body=EnrollmentBody,
            answer=EnrollmentAnswer,
            body_limit=_BODY_LIMIT,
            documented=False,
        ),
    ]


class _Handlers:
    def __init__(self, service: Enrollment) -> None:
        self._service = service

    async def ca_certificates(self, call: Call) -> Response:
        async def answer() -> list[bytes]:
            return list(await self._service.ca_certificates(call.path["id"]))

        return await _answered(answer)

    async def enroll(self, call: Call) -> Response:
        async def answer() -> list[bytes]:
            return [await self._service.enroll(_request(call))]

        return await _answered(answer)

    async def reenroll(self, call: Call) -> Response:
        async def answer() -> list[bytes]:
            return [await self._service.reenroll(_request(call))]

        return await _answered(answer)


async def _answered(answer: Callable[[], Awaitable[list[bytes]]]) -> Response:
    try:
        certificates = await answer()
    except LamassuError as error:
        refusal = Refusal(
            kind=_kind_of(error),
            text=error.text,
            code=error.code,
            field=error.field,
            retry_after=error.retry_after,
        )
        return json_answer(EnrollmentAnswer(refusal=refusal))
    encoded = [base64.b64encode(der).decode("ascii") for der in certificates]
    return json_answer(EnrollmentAnswer(certificates=encoded))


def _kind_of(error: LamassuError) -> str:
    """The name of its class in the tree of errors: slices derive classes of their own."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)


def _request(call: Call) -> EnrollmentRequest:
    body = call.decoded(EnrollmentBody)
    return EnrollmentRequest(
        dms_id=call.path["id"],
        peer=Peer(tuple(body.peer.chain), body.peer.address),
        payload=CsrPayload(
            der=body.csr,
            fault_text=body.fault_text,
            fault_code=body.fault_code,
            fault_field=body.fault_field,
        ),
        caller=Caller(ANONYMOUS, body.request_id or call.request_id, body.peer.address),
    )
