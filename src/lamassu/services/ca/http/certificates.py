"""Routes of certificates, whichever CA issued them, and counts."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.responses import Response

from lamassu.kernel.errors import Malformed
from lamassu.kernel.listing import Filterable, ListQuery, Page
from lamassu.platform.http import Access, Call, Route, json_answer, page_answer
from lamassu.platform.http.listing_query import parse_list_query
from lamassu.platform.http.wire import JsonPatches, parse_time
from lamassu.services.ca.contract import CertificateStatus
from lamassu.services.ca.http.answers import (
    CasStatsAnswer,
    CertificateAnswer,
    CertificatesStatsAnswer,
    PageAnswer,
    StatsAnswer,
    StatusCountsAnswer,
)
from lamassu.services.ca.http.approvals import demand_of
from lamassu.services.ca.http.authorities import known_status
from lamassu.services.ca.http.bodies import RevokeBody, StatusBody
from lamassu.services.ca.http.encoding import (
    CAS,
    CERTIFICATES,
    PROGRESS_HEADERS,
    Encoder,
    progress_headers,
)
from lamassu.services.ca.model import CertificateRevocation, CertificateScope, StatusChange
from lamassu.services.ca.usecases import CaService

_READ = Access.action("certificate:read")
_YEAR_ONE = datetime(1, 1, 1, tzinfo=UTC)
_COUNTED = (CertificateStatus.ACTIVE, CertificateStatus.EXPIRED, CertificateStatus.REVOKED)


def certificate_routes(service: CaService) -> list[Route]:
    """Certificates by serial number, and counts."""
    handlers = _Handlers(service)
    one = "/v1/certificates/{sn}"
    lists = [
        Route(
            method="GET",
            path=f"/v1/certificates{path}",
            access=_READ,
            handler=handler,
            summary=summary,
            description=description,
            answer=PageAnswer[CertificateAnswer],
            listing=CERTIFICATES,
        )
        for path, handler, summary, description in (
            ("", handlers.list, "List certificates", ""),
            (
                "/status/{status}",
                handlers.list_by_status,
                "List certificates by status",
                "",
            ),
            (
                "/expiration",
                handlers.list_by_expiration,
                "List certificates that expire within a window",
                "expires_after and expires_before are RFC 3339 times; revoked and expired "
                "certificates are left out.",
            ),
        )
    ]
    patching = [
        Route(
            method=method,
            path=f"{one}/metadata",
            access=Access.action("certificate:update", scope="sn"),
            handler=handlers.patch_metadata,
            summary="Patch a certificate's metadata",
            body=JsonPatches,
            answer=CertificateAnswer,
        )
        for method in ("PUT", "PATCH")
    ]
    return [
        *lists,
        Route(
            method="GET",
            path=one,
            access=Access.action("certificate:read", scope="sn"),
            handler=handlers.get,
            summary="Get a certificate",
            answer=CertificateAnswer,
        ),
        Route(
            method="PUT",
            path=f"{one}/status",
            access=Access.action("certificate:revoke", scope="sn"),
            handler=handlers.change_status,
            summary="Revoke, hold, release or deactivate a certificate",
            body=StatusBody,
            deferrable=True,
            headers=PROGRESS_HEADERS,
            answer=CertificateAnswer,
        ),
        Route(
            method="POST",
            path=f"{one}/revoke",
            access=Access.action("certificate:revoke", scope="sn"),
            handler=handlers.revoke,
            summary="Revoke a certificate",
            description="The header Lamassu-Revocation: pending says that OCSP and CRL do not "
            "show it yet.",
            body=RevokeBody,
            empty_body=True,
            deferrable=True,
            headers=PROGRESS_HEADERS,
            answer=CertificateAnswer,
        ),
        *patching,
        Route(
            method="GET",
            path="/v1/stats",
            access=Access.action("ca:read"),
            handler=handlers.stats,
            summary="Count CAs and certificates",
            description="ca_filter and cert_filter take filters of the lists.",
            answer=StatsAnswer,
        ),
        Route(
            method="GET",
            path="/v1/stats/{id}",
            access=Access.action("ca:read", scope="id"),
            handler=handlers.stats_of_ca,
            summary="Count a CA's certificates by status",
            answer=StatusCountsAnswer,
        ),
    ]


class _Handlers:
    def __init__(self, service: CaService) -> None:
        self._service = service

    async def list(self, call: Call) -> Response:
        return await self._page(call, CertificateScope())

    async def list_by_status(self, call: Call) -> Response:
        status = known_status(call.path["status"])
        if status is None:
            return page_answer(call, Page([]), Encoder(self._service).certificate)
        return await self._page(call, CertificateScope(status=status))

    async def list_by_expiration(self, call: Call) -> Response:
        scope = CertificateScope(
            expires_after=_bound(call, "expires_after"),
            expires_before=_bound(call, "expires_before"),
        )
        return await self._page(call, scope)

    async def get(self, call: Call) -> Response:
        certificate = await self._service.get_certificate(call.path["sn"])
        return json_answer(Encoder(self._service).certificate(certificate))

    async def change_status(self, call: Call) -> Response:
        return await self._change(call, call.decoded(StatusBody).value())

    async def revoke(self, call: Call) -> Response:
        reason = call.decoded(RevokeBody).reason
        return await self._change(call, StatusChange(CertificateStatus.REVOKED, reason))

    async def patch_metadata(self, call: Call) -> Response:
        certificate = await self._service.patch_certificate_metadata(
            call.path["sn"], call.decoded(JsonPatches).operations, caller=call.caller
        )
        return json_answer(Encoder(self._service).certificate(certificate))

    async def stats(self, call: Call) -> Response:
        counts = await self._service.stats(
            ca_query=_filters(call, "ca_filter", CAS),
            certificate_query=_filters(call, "cert_filter", CERTIFICATES),
        )
        return json_answer(
            StatsAnswer(
                cas=CasStatsAnswer(
                    total=counts.cas,
                    engine_distribution=dict(counts.cas_by_engine),
                    status_distribution={s.value: counts.cas_by_status[s] for s in _COUNTED},
                ),
                certificates=CertificatesStatsAnswer(
                    total=counts.certificates,
                    ca_distribution={},
                    status_distribution={
                        s.value: counts.certificates_by_status[s] for s in _COUNTED
                    },
                ),
            )
        )

    async def stats_of_ca(self, call: Call) -> Response:
        counts = await self._service.stats(
            certificate_query=_filters(call, "cert_filter", CERTIFICATES),
            issuer_ca_id=call.path["id"],
        )
        return json_answer({s.value: counts.certificates_by_status[s] for s in _COUNTED})

    async def _page(self, call: Call, scope: CertificateScope) -> Response:
        page = await self._service.page_certificates(call.listing, scope)
        return page_answer(call, page, Encoder(self._service).certificate)

    async def _change(self, call: Call, change: StatusChange) -> Response:
        outcome: CertificateRevocation = await self._service.change_certificate_status(
            call.path["sn"], change, caller=call.caller, demand=demand_of(call)
        )
        return json_answer(
            Encoder(self._service).certificate(outcome.certificate),
            headers=progress_headers(
                shown=outcome.shown,
                job_id=outcome.job_id,
                ceremony=await self._service.ceremony_of(outcome.certificate),
            ),
        )


def _bound(call: Call, name: str) -> datetime:
    """A bound of the window; a missing one is year 1, as in the original."""
    text = call.argument(name)
    if not text:
        return _YEAR_ONE
    try:
        return parse_time(text.replace(" ", "+"))  # a `+` that nobody escaped
    except ValueError as fault:
        raise Malformed(f"{name} {fault}", code="invalid_time", field=name) from None


def _filters(call: Call, name: str, fields: Filterable) -> ListQuery:
    query = parse_list_query({"filter": call.query.get(name, ())}, fields)
    if any(condition.field == "status" for condition in query.filters):
        raise Malformed(
            "counts are by status already: it cannot be filtered by",
            code="invalid_filter",
            field=name,
        )
    return query
