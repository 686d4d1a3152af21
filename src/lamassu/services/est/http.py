"""EST's routes (RFC 7030): they judge nothing, the DMS does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.responses import Response

from lamassu.kernel.errors import NotFound, RuleViolation, TooLarge
from lamassu.platform.http import Access, Call, Route, empty_answer, json_answer
from lamassu.services.dms.contract import Enrollment, EnrollmentRequest
from lamassu.services.est.messages import (
    MOST_OCTETS,
    PEM_TYPE,
    EstAnswer,
    read_csr,
    write_certificates,
)

BASE = "/.well-known/est"
_NOT_IMPLEMENTED = 501
# The second for who accepts exactly that.
_CERTIFICATES = ("application/pkcs7-mime", PEM_TYPE)


def routes(enrollment: Enrollment, *, default_dms: str | None = None) -> list[Route]:
    """EST's routes, to be mounted under `/api/dmsmanager` and at the root.

    Without a DMS in the path `default_dms` answers, where one is configured.
    """
    handlers = _Handlers(enrollment, default_dms)
    return [
        route
        for base in (f"{BASE}/{{aps}}", BASE)
        for route in (
            _route(
                "GET", f"{base}/cacerts", handlers.cacerts, "CA certificates (§4.1)", public=True
            ),
            _route(
                "GET",
                f"{base}/csrattrs",
                handlers.csrattrs,
                "CSR attributes (§4.5)",
                public=True,
                status=204,
            ),
            _route("POST", f"{base}/simpleenroll", handlers.simpleenroll, "Enroll (§4.2.1)"),
            _route("POST", f"{base}/simplereenroll", handlers.simplereenroll, "Re-enroll (§4.2.2)"),
            _route(
                "POST",
                f"{base}/serverkeygen",
                handlers.serverkeygen,
                "Server keys (§4.4); not available yet",
                status=_NOT_IMPLEMENTED,
            ),
            _route("POST", f"{base}/fullcmc", handlers.fullcmc, "Full CMC (§4.3)"),
        )
    ]


def _route(
    method: str,
    path: str,
    handler: Callable[[Call], Awaitable[Response]],
    summary: str,
    *,
    public: bool = False,
    status: int = 200,
) -> Route:
    return Route(
        method=method,
        path=path,
        access=Access.PUBLIC if public else Access.EST,
        handler=handler,
        summary=summary,
        status=status,
        media_types=_CERTIFICATES if status == 200 else (),
        body_limit=MOST_OCTETS,
    )


class _Handlers:
    def __init__(self, enrollment: Enrollment, default_dms: str | None) -> None:
        self._enrollment = enrollment
        self._default_dms = default_dms

    async def cacerts(self, call: Call) -> Response:
        certificates = await self._enrollment.ca_certificates(self._dms_of(call))
        return _answer(write_certificates(certificates, accept=call.headers.get("accept", "")))

    async def csrattrs(self, call: Call) -> Response:
        """No attributes are asked for (§4.5.2: 204)."""
        await self._enrollment.ca_certificates(self._dms_of(call))  # 404 for an unknown DMS
        return empty_answer()

    async def simpleenroll(self, call: Call) -> Response:
        return await self._enroll(call, self._enrollment.enroll)

    async def simplereenroll(self, call: Call) -> Response:
        return await self._enroll(call, self._enrollment.reenroll)

    async def serverkeygen(self, call: Call) -> Response:
        return json_answer(
            {
                "err": "server key generation is not available yet; make the key on the device",
                "code": "not_available",
                "field": None,
            },
            status=_NOT_IMPLEMENTED,
        )

    async def fullcmc(self, call: Call) -> Response:
        raise NotFound("full CMC is not offered; use simpleenroll", code="not_available")

    async def _enroll(
        self, call: Call, deed: Callable[[EnrollmentRequest], Awaitable[bytes]]
    ) -> Response:
        if len(call.raw) > MOST_OCTETS:
            raise TooLarge(f"the body exceeds {MOST_OCTETS} octets")
        request = EnrollmentRequest(
            dms_id=self._dms_of(call),
            peer=call.peer,
            payload=read_csr(call.raw, media_type=call.headers.get("content-type", "")),
            caller=call.caller,
        )
        certificate = await deed(request)
        return _answer(write_certificates([certificate], accept=call.headers.get("accept", "")))

    def _dms_of(self, call: Call) -> str:
        dms_id = call.path.get("aps") or self._default_dms
        if not dms_id:
            raise RuleViolation(
                f"no DMS in the path, and none is the default; use {BASE}/DMS/...",
                code="dms_missing",
                field="aps",
            )
        return dms_id


def _answer(answer: EstAnswer) -> Response:
    return Response(answer.body, headers=answer.headers)
